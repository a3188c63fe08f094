"""Entries of the history of an alias: moves, and the holds that keep runs from moving it."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from isospace.collection.snapshot import Manifest
from isospace.storage.store import Store

CANDIDATE = "candidate"
"""Alias of the snapshot that a gate judges. Every gate moves it, so it cannot be held."""

Action: TypeAlias = Literal["promote", "rollback", "hold", "release"]


class AliasEntry(BaseModel):
    """One move of an alias, or the begin or end of a hold, which repeats the snapshot that the alias names.

    Attributes
    ----------
    forced
        Objections of the gate to a forced promotion.
    author
        Who moved, held, or released the alias; empty for runs.
    hold
        True: the alias is held from here on. False: it is released. None: as before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    alias: str
    number: int
    action: Action
    snapshot: int
    snapshot_id: str
    reason: str
    at: str
    forced: str = ""
    author: str = ""
    hold: bool | None = None

    @property
    def is_move(self) -> bool:
        """Whether the alias moved: a hold and a release leave it where it is."""
        return self.action in ("promote", "rollback")

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what this entry does not use, so that versions without holds can read it."""
        unused = {"author": "", "hold": None}
        return {name: value for name, value in handler(self).items() if name not in unused or value != unused[name]}


def new_entry(
    alias: str,
    number: int,
    action: Action,
    manifest: Manifest,
    reason: str,
    *,
    forced: str = "",
    author: str = "",
    hold: bool | None = None,
) -> AliasEntry:
    """Return an entry that names a snapshot, as of now."""
    return AliasEntry(
        alias=alias,
        number=number,
        action=action,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        reason=reason,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        forced=forced,
        author=author,
        hold=hold,
    )


def held_by(history: Sequence[AliasEntry]) -> AliasEntry | None:
    """Return the entry that began the hold of an alias; None if the alias is not held."""
    last = next((entry for entry in reversed(history) if entry.hold is not None), None)
    return last if last is not None and last.hold else None


def describe_hold(holding: AliasEntry, snapshot: int) -> str:
    """Return in words that an alias is held, at which snapshot, why, by whom, and since when."""
    reason = " ".join(holding.reason.split()).rstrip(".") or "no reason was given"
    by = f"by {holding.author}, " if holding.author else ""
    return f"{holding.alias} is held at {snapshot}: {reason} ({by}{holding.at[:10]})"


def release_command(store: Store, collection: str, alias: str) -> str:
    """Return the command that releases an alias."""
    parts = ["isospace", "release", store.url, collection, *([alias] if alias != "production" else [])]
    return shlex.join(parts)


def promote_command(store: Store, collection: str, alias: str, snapshot: int | str, *, hold: bool = False) -> str:
    """Return the command that moves an alias to a snapshot, and holds it there if `hold`."""
    chosen = [*([] if alias == "production" else ["--alias", alias]), "--snapshot", str(snapshot)]
    ending = [*(["--hold"] if hold else []), "--reason", "…"]
    return shlex.join(["isospace", "promote", store.url, collection, *chosen, *ending])


def login_name() -> str:
    """Return the name of the user, by default the author of a hold; `unknown` if the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
