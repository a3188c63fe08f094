"""Router models: each route becomes an ordinary model folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isospace.encoding.registry.files import model_files
from isospace.encoding.registry.model_loading import load_model
from isospace.encoding.registry.router import is_router, query_spec, route_folder
from isospace.encoding.spec import EncoderSpec
from isospace.errors import EncoderError
from isospace.transform.affine import ROLES

OF_LIBRARY = "sentence_transformers.base.modules"


def router(folder: Path, routes: dict[str, list[str]], *, place: str = "") -> Path:
    """Write the files of a Router model without weights that anything could load."""
    names = sorted({name for route in routes.values() for name in route})
    for name in names:
        path = folder / place / name
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(name.encode())
    (folder / "1_Normalize").mkdir()
    listed = [("0", place, f"{OF_LIBRARY}.router.Router"), ("1", "1_Normalize", f"{OF_LIBRARY}.normalize.Normalize")]
    modules = [{"idx": n, "name": name, "path": path, "type": kind} for n, (name, path, kind) in enumerate(listed)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    types = {name: f"{OF_LIBRARY}.{name.rpartition('_')[2]}" for name in names}
    document = {"types": types, "structure": routes, "parameters": {}}
    (folder / place / "router_config.json").write_text(json.dumps(document))
    return folder


ROUTES = {"query": ["query_0_Transformer"], "document": ["document_0_Transformer", "document_1_Pooling"]}


@pytest.mark.parametrize("place", ["", "0_Router"])
def test_a_route_has_its_own_modules_and_those_after_the_router(tmp_path: Path, place: str) -> None:
    folder = router(tmp_path / "m", ROUTES, place=place)
    assert is_router(folder)
    for role in ROLES:
        made = route_folder(folder, role)
        listed = json.loads((made / "modules.json").read_text())
        assert [one["path"] for one in listed] == [*ROUTES[role], "1_Normalize"]
        assert [one["idx"] for one in listed] == list(range(len(listed)))
        files = model_files(made)
        assert {"modules.json", "config_sentence_transformers.json"} < files.keys()
        assert {name.partition("/")[0] for name in files if "/" in name} == set(ROUTES[role])
        # The same folder again, also for another process.
        assert route_folder(folder, role) == made


def test_routes_of_equal_models_elsewhere_have_equal_files_and_those_of_the_roles_differ(tmp_path: Path) -> None:
    first, second = (router(tmp_path / name / "m", ROUTES) for name in ("a", "b"))
    files = [model_files(route_folder(folder, role)) for folder in (first, second) for role in ROLES]
    assert files[0] == files[2]
    assert files[1] == files[3]
    assert files[0] != files[1]


def test_a_changed_router_is_another_model(tmp_path: Path) -> None:
    folder = router(tmp_path / "m", ROUTES)
    before = model_files(route_folder(folder, "query"))
    config = json.loads((folder / "router_config.json").read_text())
    config["structure"]["query"] = ["document_0_Transformer"]
    (folder / "router_config.json").write_text(json.dumps(config))
    assert model_files(route_folder(folder, "query")) != before
    changed = model_files(route_folder(folder, "query"))
    (folder / "document_0_Transformer" / "model.safetensors").write_bytes(b"trained further")
    assert model_files(route_folder(folder, "query")) != changed


def test_any_other_model_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    assert route_folder(tiny_model, "query") == tiny_model
    assert route_folder(tmp_path, "query") == tmp_path
    own, other = EncoderSpec(model=str(tiny_model)), EncoderSpec(model=str(router(tmp_path / "m", ROUTES)))
    assert query_spec(own, None) is None
    assert query_spec(own, other) is other
    assert query_spec(other, None) is other
    # An explicit model for queries comes before the route.
    assert query_spec(other, own) is own


@pytest.mark.parametrize("former", [False, True])
def test_a_router_after_the_pooling_gives_each_role_its_head(tiny_model: Path, tmp_path: Path, former: bool) -> None:
    """The Transformer's files are in the model's own folder, beside those of the other modules."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    transformer, pooling, _ = SentenceTransformer(str(tiny_model), device="cpu")
    heads = Router.for_query_document([Dense(16, 8)], [Dense(16, 8), Dense(8, 8)])
    model = SentenceTransformer(modules=[transformer, pooling, heads, Normalize()], device="cpu")
    folder = tmp_path / "m"
    model.save_pretrained(str(folder))
    if former:
        # As it was saved before version 5.
        (folder / "2_Router" / "router_config.json").rename(folder / "2_Router" / "config.json")
        listed = (folder / "modules.json").read_text().replace("base.modules.router.Router", "models.Asym")
        (folder / "modules.json").write_text(listed)
    assert is_router(folder)
    texts = ["the cell", "a gene of the protein", ""]
    for role, expected in (("query", model.encode_query(texts)), ("document", model.encode_document(texts))):
        route = route_folder(folder, role)
        assert {"config.json", "model.safetensors", "tokenizer.json", "modules.json"} < model_files(route).keys()
        assert np.abs(load_model(route).model.encode(texts) - expected).max() < 1e-6
    assert not np.allclose(model.encode_query(texts), model.encode_document(texts), atol=0.1)


def test_routes_are_found_by_task_and_modality_as_in_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Normalize

    maps = [
        {("query", "text"): "a", ("document", None): "b"},
        {("query", None): "a", (None, "text"): "b"},
        {(None, None): "b", ("document", "image"): "a"},
        {("query", "image"): "a", (None, "text"): "b", (None, None): "a"},
        {("query", None): "document"},
        {},
    ]
    for number, mapping in enumerate(maps):
        names = (
            ["query", "document"] if not all(name in "ab" for name in mapping.values()) or not mapping else ["a", "b"]  # type: ignore[attr-defined]
        )
        theirs = Router({name: [Normalize()] for name in names}, route_mappings=mapping)
        folder = router(tmp_path / str(number), {name: [f"{name}_0_Transformer"] for name in names})
        document = json.loads((folder / "router_config.json").read_text())
        document["parameters"] = {"route_mappings": {str(pair): route for pair, route in mapping.items()}}  # type: ignore[attr-defined]
        (folder / "router_config.json").write_text(json.dumps(document))
        for role in ROLES:
            expected = theirs._resolve_route(task=role, modality="text")
            listed = json.loads((route_folder(folder, role) / "modules.json").read_text())
            assert listed[0]["path"] == f"{expected}_0_Transformer", (mapping, role)


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({"image": ["image_0_Transformer"]}, r"has the routes image; expected document and query"),
        ({"query": ["query_0_Transformer"], "document": []}, r"has the routes query, document; expected"),
    ],
)
def test_a_router_without_a_route_for_the_role_is_refused(
    tmp_path: Path, routes: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(EncoderError, match=message):
        route_folder(router(tmp_path / "m", routes), "document")


def test_a_damaged_or_forged_router_is_refused(tmp_path: Path) -> None:
    folder = router(tmp_path / "m", ROUTES)
    (folder / "router_config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"router_config\.json of its Router cannot be read"):
        route_folder(folder, "query")
    forged = {"types": {"../../etc": "x.Transformer"}, "structure": {"query": ["../../etc"]}}
    (folder / "router_config.json").write_text(json.dumps(forged))
    with pytest.raises(EncoderError, match=r"names the module '../../etc', outside of its folder"):
        route_folder(folder, "query")
