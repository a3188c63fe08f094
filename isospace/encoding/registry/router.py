"""Router models of sentence-transformers: one model that encodes documents and queries by routes of its own.

Each route is a sequence of modules. Here it becomes an ordinary model folder, with the modules of the route in place of
the router, so that it is identified, stored, exported, and run like any other encoder.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from isospace.encoding.registry.model_loading import locate_model
from isospace.encoding.spec import AnyEncoderSpec, ServedEncoderSpec
from isospace.errors import EncoderError
from isospace.storage.cache import cache_folder
from isospace.storage.hashing import sha256
from isospace.storage.store import Store
from isospace.transform.affine import ROLES, Role

_MODULES, _ROUTER, _SETTINGS = "modules.json", "router_config.json", "config_sentence_transformers.json"
# What a Router was called, and where it kept its settings, before sentence-transformers 5.
_ASYM = "config.json"
_ROUTERS = ("Router", "Asym")
# Names the languages of the model; not part of its identity.
_CARD = "README.md"


def query_spec(
    document: AnyEncoderSpec, query: AnyEncoderSpec | None, store: Store | None = None
) -> AnyEncoderSpec | None:
    """Return what encodes queries, if it is not what encodes documents: `recipe.query_encoder`, or a Router's route."""
    if query is not None:
        return query
    if isinstance(document, ServedEncoderSpec):
        return None
    return document if is_router(locate_model(document, store)) else None


def is_router(folder: Path) -> bool:
    """Return whether one of a model's modules is a Router, such as a Dense module for each role after the pooling."""
    return _router(_modules(folder)) is not None


def route_folder(folder: Path, role: Role) -> Path:
    """Return a folder with the model of one role: the same folder, unless one of its modules is a Router.

    The folder of a route is in the local cache. It links to the modules in `folder`, and is named by what it holds.

    Raises
    ------
    EncoderError
        If the Router's files are damaged, or it has no route of this name.
    """
    modules = _modules(folder)
    router = _router(modules)
    if router is None:
        return folder
    place = _below(folder, str(router["path"]))
    try:
        config = json.loads(_settings_of(place).read_text(encoding="utf-8"))
        routes: dict[str, list[str]] = config["structure"]
        types: dict[str, str] = config["types"]
        named = [(name, str(types[name])) for name in routes.get(_route_name(config, role), [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise EncoderError(
            f"model {folder.name}: {_ROUTER} of its Router cannot be read ({reason}). Save the model again."
        ) from error
    if not named:
        raise EncoderError(
            f"model {folder.name}: its Router has the routes {', '.join(routes) or 'none'}; expected "
            f"{' and '.join(ROLES)}, so that each role has its encoder. Save it with Router.for_query_document(…)."
        )
    folders: list[tuple[str, str, Path]] = []
    for one in modules:
        if one is router:
            folders += [(name, kind, _below(place, name)) for name, kind in named]
        else:
            folders.append((str(one["path"]), str(one["type"]), _below(folder, str(one["path"]))))
    return _assembled(folder, role, folders)


def _settings_of(place: Path) -> Path:
    """Return the settings of a Router; it was called Asym, and had them in config.json."""
    return place / _ROUTER if (place / _ROUTER).is_file() or not (place / _ASYM).is_file() else place / _ASYM


def _route_name(config: dict[str, Any], role: Role) -> str:
    """Return the route of a role for texts, found as sentence-transformers finds it.

    It first looks for the task (the role) and the modality in `route_mappings`, whose keys are pairs that were written
    as strings, and None stands for any. Then a route is named like the task or the modality.
    """
    mappings: dict[str, str] = (config.get("parameters") or {}).get("route_mappings") or {}
    for pair in ((role, "text"), (role, None), (None, "text"), (None, None)):
        if str(pair) in mappings:
            return mappings[str(pair)]
    return role if role in config["structure"] else "text"


def _assembled(folder: Path, role: Role, modules: list[tuple[str, str, Path]]) -> Path:
    """Return a folder whose modules.json lists some modules, by name, type, and where they are."""
    listed = [{"idx": n, "name": str(n), "path": name, "type": kind} for n, (name, kind, _) in enumerate(modules)]
    documents = {_MODULES: json.dumps(listed, indent=2)}
    if (folder / _SETTINGS).is_file():
        documents[_SETTINGS] = (folder / _SETTINGS).read_text(encoding="utf-8")
    links = {name: target.resolve() for name, _, target in modules if name and target.is_dir()}
    if any(not name for name, _, _ in modules):
        # The first module may be in the model's own folder, among the others' folders.
        links |= {path.name: path.resolve() for path in folder.iterdir() if path.is_file()}
    if (folder / _CARD).is_file():
        links[_CARD] = (folder / _CARD).resolve()
    links = {name: linked for name, linked in links.items() if name not in documents}
    key = sha256(
        json.dumps([documents, {name: str(linked) for name, linked in links.items()}], sort_keys=True).encode()
    )[:16]
    target = cache_folder() / "routes" / key / f"{folder.name}-{role}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    for name, text in documents.items():
        (made / name).write_text(text, encoding="utf-8")
    for name, linked in links.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).symlink_to(linked, target_is_directory=linked.is_dir())
    try:
        made.rename(target)
    except OSError:
        # Another process was first, with the same content.
        shutil.rmtree(made, ignore_errors=True)
        if not target.is_dir():
            raise
    return target


def _below(folder: Path, name: str) -> Path:
    """Return a path in a folder; EncoderError if it leads out of it, which only a forged model does."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise EncoderError(f"model {folder.name}: names the module {name!r}, outside of its folder. Do not use it.")
    return folder / name


def _modules(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of modules.json; none if there is no such file, or whoever loads the model will refuse it."""
    try:
        listed = json.loads((folder / _MODULES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    usable = isinstance(listed, list) and all(isinstance(one, dict) for one in listed)
    return listed if usable and all({"path", "type"} <= one.keys() for one in listed) else []


def _router(modules: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the entry of a model's Router; of a second one, whoever loads the model says that it is not supported."""
    return next((one for one in modules if str(one["type"]).rpartition(".")[2] in _ROUTERS), None)
