"""Recognize pointers: small files that Git LFS and git-annex put in place of large ones that were not fetched."""

from __future__ import annotations

import re

from isospace.ingest.readers.source_file import SourceFile

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer has less than 1,024 bytes.
MAX_POINTER_BYTES = 1_024
_LFS = re.compile(
    rb"version https?://(?:git-lfs\.github\.com/spec|hawser\.github\.com/spec|git-media\.io)/v\d+\r?\n"
    rb"(?:[a-z0-9.-]+ [^\n]*\n)*?oid [^\n]+\r?\n(?:size (\d+))?"
)
# https://git-annex.branchable.com/internals/pointer_file/
_ANNEX = re.compile(rb"(?:\.\./)*(?:\.git)?/annex/objects/\S+\r?\n?")


def stored_pointer(file: SourceFile) -> str | None:
    """Return what `pointer_reason` says of a file as it is stored: a pointer keeps the name of what it stands for.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    if file.size >= MAX_POINTER_BYTES:
        return None
    with (file.stored or file.open)() as stream:
        return pointer_reason(bytes(stream.read(MAX_POINTER_BYTES)))


def pointer_reason(data: bytes) -> str | None:
    """Return why a file's content stands for another, as a clause with the command that fetches it; else None."""
    if len(data) >= MAX_POINTER_BYTES:
        return None
    if match := _LFS.match(data):
        size = f" of {int(match[1]):,} bytes" if match[1] else ""
        return f"is a pointer of Git LFS to a file{size} that was not fetched; run `git lfs pull`"
    if _ANNEX.fullmatch(data):
        return "is a pointer of git-annex to a file that was not fetched; run `git annex get`"
    return None
