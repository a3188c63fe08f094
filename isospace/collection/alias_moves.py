"""Judge the history of an alias: where a rollback leads, and where a run may not move it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from isospace.collection.alias_entry import AliasEntry
from isospace.collection.snapshot import Manifest


def previous_entry(history: Sequence[AliasEntry]) -> AliasEntry | None:
    """Return the entry to which a rollback would return; None if there is none.

    The history is evaluated as a stack, so that two rollbacks go back two snapshots. A promotion to the same content in
    other files, as after a compaction, replaces the top of the stack.
    """
    stack: list[AliasEntry] = []
    for entry in history:
        if entry.action == "rollback" and len(stack) > 1:
            stack.pop()
        elif entry.action == "promote" and stack and stack[-1].snapshot_id == entry.snapshot_id:
            stack[-1] = entry
        elif entry.action == "promote":
            stack.append(entry)
    return stack[-2] if len(stack) > 1 else None


def has_moved(history: Sequence[AliasEntry], *, since: AliasEntry) -> bool:
    """Return whether an alias has moved after an entry of its history; a hold or a release is no move."""
    return since not in history or any(entry.is_move for entry in history if entry.number > since.number)


def was_passed(history: Sequence[AliasEntry], manifest: Manifest) -> bool:
    """Return whether an alias has named this snapshot or a later one, or left its content by a rollback."""
    reached = any(entry.snapshot >= manifest.sequence for entry in history)
    return reached or (_was_rolled_back(history, manifest) and not _is_current(history, manifest))


def why_passed(history: Sequence[AliasEntry], manifest: Manifest) -> str:
    """Return in words why a run leaves an alias where it is; empty if it moves it, or has nowhere to move it."""
    if _is_current(history, manifest) or not was_passed(history, manifest):
        return ""
    if _was_rolled_back(history, manifest):
        return f"snapshot {manifest.sequence} has content that was rolled back"
    if history[-1].snapshot > manifest.sequence:
        return f"snapshot {manifest.sequence} is older"
    return f"it named snapshot {manifest.sequence} or a later one before, and was moved back by hand"


def _was_rolled_back(history: Sequence[AliasEntry], manifest: Manifest) -> bool:
    return manifest.snapshot_id in {left.snapshot_id for left, entry in pairwise(history) if entry.action == "rollback"}


def _is_current(history: Sequence[AliasEntry], manifest: Manifest) -> bool:
    return bool(history) and history[-1].snapshot_id == manifest.snapshot_id
