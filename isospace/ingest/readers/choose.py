"""Choose the files of a source that are read, and say which ones could have been meant and are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from isospace.ingest.document import QuarantineEntry
from isospace.ingest.readers.compressed import ARCHIVES, COMPRESSED, UNREAD_ARCHIVES, UNREAD_FILES, unpacked
from isospace.ingest.readers.source_file import SourceFile, left_out
from isospace.ingest.spec import DocumentsSpec

TABLE_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_TABLE_FORMATS = frozenset(TABLE_SUFFIXES.values())


def choose_files(
    files: Sequence[SourceFile], spec: DocumentsSpec, *, in_archive: bool = False
) -> tuple[list[tuple[SourceFile, str]], list[QuarantineEntry]]:
    """Return the files to read, each with how, and what was left out with a reason.

    How is `jsonl`, `csv`, `parquet`, `files` for one document per file, or `archive`. Compressed files come as what
    they hold. Files of other kinds, such as pictures, are not mentioned.

    Parameters
    ----------
    in_archive
        Whether they are members of an archive; compressed files and archives among them are not opened.
    """
    folders = _folders(files)
    plain = {file.identifier for file in files}
    chosen: list[tuple[SourceFile, str]] = []
    aside: list[QuarantineEntry] = []
    copies: list[SourceFile] = []
    for file in files:
        if _is_marker(file, folders):
            continue
        inner = unpacked(file)
        if reason := _unread_reason(inner, spec, in_archive=in_archive):
            aside.append(left_out(file.name, reason))
        elif inner.suffix in ARCHIVES:
            chosen.append((inner, "archive"))
        elif (kind := format_of(inner, spec)) is None:
            continue
        elif inner is not file and inner.identifier in plain:
            copies.append(inner)
        else:
            chosen.append((inner, kind))
    return chosen, [*aside, *_copies(copies)]


def unmatched_files(files: Sequence[SourceFile], spec: DocumentsSpec) -> list[SourceFile]:
    """Return the files of a source that are not read because of their name alone, such as pictures."""
    folders = _folders(files)
    plain = [file for file in files if not _is_marker(file, folders)]
    return [
        file
        for file, inner in ((file, unpacked(file)) for file in plain)
        if not _unread_reason(inner, spec, in_archive=False)
        and inner.suffix not in ARCHIVES
        and format_of(inner, spec) is None
    ]


def _unread_reason(file: SourceFile, spec: DocumentsSpec, *, in_archive: bool) -> str:
    """Return why a compressed file is not read; empty if it is."""
    suffix = file.suffix
    if in_archive and suffix in ARCHIVES:
        return "is an archive within an archive, which is not opened; unpack it"
    if suffix in ARCHIVES and file.is_compressed:
        return f"is an archive ({suffix}) that is compressed again, which is not opened; expand it once"
    if suffix in UNREAD_ARCHIVES:
        return f"is an archive ({suffix}), which is not opened; unpack it, or pack it as .zip"
    if suffix in UNREAD_FILES or suffix in COMPRESSED:
        return _compression_reason(suffix, file, spec, in_archive=in_archive)
    if file.stored and not suffix and format_of(file, spec) is None:
        kind = PurePosixPath(file.name).suffix
        return f"is compressed ({kind}), and its name does not say what it holds; call it such as name.txt{kind}"
    return ""


def _compression_reason(suffix: str, file: SourceFile, spec: DocumentsSpec, *, in_archive: bool) -> str:
    inner = PurePosixPath(file.identifier)
    while inner.suffix.lower() in COMPRESSED | UNREAD_FILES:
        inner = inner.with_suffix("")
    if format_of(replace(file, content_name=str(inner)), spec) is None:
        return ""
    if in_archive:
        return f"is a compressed file ({suffix}) within an archive, which is not opened; expand it"
    if file.stored:
        return (
            f"is compressed twice ({PurePosixPath(file.identifier).suffix} within), which is not read; expand it once"
        )
    return f"is compressed ({suffix}) in a way that is not read; expand it, or use .gz or .zst"


def _copies(files: Sequence[SourceFile]) -> Iterator[QuarantineEntry]:
    """Yield one entry for all compressed copies: servers of web sites keep one beside every page."""
    if files:
        rest = f", as are {len(files) - 1:,} more" if len(files) > 1 else ""
        reason = f"has the name of a plain file beside it, which is read instead{rest}; rename it if it differs"
        yield left_out(files[0].name, reason)


# What other systems write beside tables: Hadoop and Spark, and consoles of object stores.
_MARKERS = ("_SUCCESS", "_metadata", "_common_metadata", "_committed_*", "_started_*", "*_$folder$")
_PRIVATE_FOLDERS = frozenset({"_temporary", "_delta_log", "_spark_metadata"})


def _folders(files: Iterable[SourceFile]) -> frozenset[str]:
    return frozenset(parent.as_posix() for file in files for parent in PurePosixPath(file.name).parents)


def _is_marker(file: SourceFile, folders: frozenset[str]) -> bool:
    """Return whether a file says something about the others, or stands for a folder, and holds no documents."""
    path = PurePosixPath(file.name)
    if any(fnmatchcase(path.name, pattern) for pattern in _MARKERS) or _PRIVATE_FOLDERS & set(path.parts[:-1]):
        return True
    # Object stores keep an empty object for a folder; its slash at the end is not listed.
    return file.size == 0 and (file.name in folders or not path.suffix)


def format_of(file: SourceFile, spec: DocumentsSpec) -> str | None:
    """Return how a file is read: `jsonl`, `csv`, `parquet`, or `files`; None if it is not."""
    by_suffix = TABLE_SUFFIXES.get(file.suffix)
    if spec.format in _TABLE_FORMATS:
        return spec.format if by_suffix in (None, spec.format) else None
    if spec.format == "auto" and by_suffix:
        return by_suffix
    return "files" if file.matches(spec.include) else None
