"""Warn of a run that adds vectors with other bits than those beside them, or refuse it, as configured."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from isospace.collection.origins import MixedBits, Origin, distinct, is_mixed, part_origins
from isospace.collection.snapshot import Manifest
from isospace.encoding.engine import Engine
from isospace.errors import MismatchError

_REMEDY = "Run with the engine, version, and instruction set of the stored vectors; runtime.mixed_bits=refuse insists."
_PACKAGES = {"openvino": "openvino", "torch": "torch", "onnx": "onnxruntime"}


def stored_beside(base: Manifest | None, kept: Sequence[str], reused: Sequence[Origin]) -> tuple[Origin, ...]:
    """Return the origins of the vectors that a run takes from the store: of kept parts, and of reused texts."""
    origins = base.origins if base is not None else None
    return distinct([*reused, *(origin for part in kept for origin in part_origins(origins, part))])


def mixture(stored: Sequence[Origin], computing: Sequence[Origin] = ()) -> str | None:
    """Describe the origins of a snapshot's vectors if their bits cannot be promised together; else None.

    Parameters
    ----------
    stored
        What computed vectors that are stored.
    computing
        What computes vectors now.
    """
    together = distinct([*stored, *computing])
    if not is_mixed(together):
        return None
    old, new = (" and ".join(origin.describe() for origin in distinct(group)) for group in (stored, computing))
    if not all(origin.is_recorded for origin in together):
        here = f"; this run computes with {new}" if computing else ""
        return f"the stored vectors come from {old}, and what decides their bits was not recorded{here}"
    if not stored:
        return f"the workers of this run compute different bits: {new}"
    if not computing:
        return f"the stored vectors have different bits: they come from {old}"
    return f"the stored vectors come from {old}; this run computes with {new}, and the bits differ"


def judge_mixture(policy: MixedBits, stored: Sequence[Origin], computing: Sequence[Origin] = ()) -> str | None:
    """Return the warning about mixed bits, or None if there is nothing to warn of.

    Raises
    ------
    MismatchError
        If there is, and `runtime.mixed_bits` is `refuse`.
    """
    found = mixture(stored, computing)
    if found is None:
        return None
    if policy == "refuse":
        raise MismatchError(
            f"{found}, and runtime.mixed_bits is refuse. Run with the engine, version, and instruction set of the "
            "stored vectors, or set runtime.mixed_bits=warn: the snapshot then promises a tolerance."
        )
    return f"{found}: the snapshot promises a tolerance instead of identical bits. {_REMEDY}"


def require_class(policy: MixedBits, origin: Origin, classes: Sequence[str]) -> None:
    """Refuse a worker that was started later, and computes other bits than the run's vectors have.

    Raises
    ------
    MismatchError
        If it does, and `runtime.mixed_bits` is `refuse`.
    """
    if policy == "refuse" and classes and origin.bits_class not in classes:
        raise MismatchError(
            f"this worker computes with {origin.describe()}, which gives other bits than the run's vectors have, and "
            "runtime.mixed_bits is refuse. Use workers with one engine, version, and instruction set, or set "
            "runtime.mixed_bits=warn."
        )


def planned_engine(engine: Engine) -> str:
    """Return the name and version of a resolved engine, as origins have it, without loading it."""
    package = _PACKAGES.get(engine.backend, engine.backend)
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def foreseen_mixture(stored: Sequence[Origin], engine: Engine | None) -> str | None:
    """Return why bits will differ, as far as names and versions tell; `engine` is the one that will encode, if any."""
    if (found := mixture(stored)) is not None or engine is None or not stored:
        return found
    planned, device = planned_engine(engine), engine.device.partition(":")[0]
    if (stored[0].engine, stored[0].device.partition(":")[0]) == (planned, device):
        return None
    return f"the stored vectors come from {stored[0].describe()}; this run will compute with {planned} on {device}"
