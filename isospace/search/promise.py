"""What an opened snapshot promises: equal bits for a text that is embedded again, or a measured tolerance."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from isospace.collection.origins import Origin, is_mixed, origin_of, snapshot_classes
from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import OpenSpace
from isospace.encoding.role_encoders import DeferredEncoder, RoleEncoders
from isospace.transform.probes import Agreement
from isospace.transform.space import Promise

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotPromise:
    """What holds for the vectors of one snapshot and those that are computed here.

    Attributes
    ----------
    kind
        `bitwise`: the raw vector of a text, computed here, has the bits of the stored one. Only if one class of bits
        computed all vectors of the snapshot, and this encoder computes the same bits. If queries have another encoder
        than documents, also: a query has the bits that it has in every process with this promise.
    cosine
        Otherwise the smallest cosine to expect between the raw vectors, from measurements on the probes; 1 if
        `bitwise`, None if no encoder was loaded.
    reason
        Why it is not `bitwise`; empty if it is.
    stored
        What computed the stored vectors, in words.
    """

    kind: Promise
    cosine: float | None
    reason: str
    stored: tuple[str, ...]

    @property
    def is_bitwise(self) -> bool:
        """Whether it is `bitwise`."""
        return self.kind == "bitwise"


def promise_of(manifest: Manifest, space: OpenSpace) -> SnapshotPromise:
    """Compare what computed the vectors of a snapshot with what embeds texts here.

    Usually nothing is computed: if the encoder reproduced the probes of the space, it computes the bits of the engine
    that sealed the space. Only if the snapshot's vectors come from another one are the texts of
    `isospace.encoding.bits` encoded.
    """
    classes = snapshot_classes(manifest.origins)
    stored = tuple(origin.describe() for origin in classes)
    if space.agreement is None:
        return SnapshotPromise("within tolerance", None, "no encoder was loaded", stored)
    of_queries = _queries(space)
    reason = _problem(classes, stored) or _difference(classes, space) or _difference_of_queries(space, of_queries)
    if not reason:
        return SnapshotPromise("bitwise", 1.0, "", stored)
    cosine = min([_smallest_cosine(classes, space), *(one.cosine for one in of_queries)])
    return SnapshotPromise("within tolerance", cosine, reason, stored)


def log_promise(manifest: Manifest, promise: SnapshotPromise) -> None:
    """Log why a text that is embedded here will not have the bits of its stored vector."""
    if promise.cosine is not None and not promise.is_bitwise:
        # A GPU's vectors never have the bits of a query's: only what could have been otherwise is worth a warning.
        avoidable = is_mixed(classes := snapshot_classes(manifest.origins)) or classes[0].is_reproducible
        _LOG.log(
            logging.WARNING if avoidable else logging.INFO,
            "snapshot %d does not promise identical bits, but cosines of raw vectors within %.1e of 1, measured on "
            "probes: %s",
            manifest.sequence,
            1.0 - promise.cosine,
            promise.reason,
        )


def _problem(classes: tuple[Origin, ...], stored: tuple[str, ...]) -> str:
    """Return why no encoder could reproduce all stored bits; empty if one can."""
    if any(not origin.is_recorded for origin in classes):
        return f"its vectors come from {' and '.join(stored)}, and what decides their bits was not recorded for all"
    if len(classes) > 1:
        return f"its vectors have different bits: they come from {' and '.join(stored)}"
    if any(not origin.batch_invariant for origin in classes):
        return f"its vectors come from {stored[0]}, where a text's bits depend on its batch"
    return ""


def _difference(classes: tuple[Origin, ...], space: OpenSpace) -> str:
    """Return how the bits that are computed here differ from those of the only class; empty if they do not."""
    if not _encodes_documents(space):
        return ""
    expected = {origin.bits_class for origin in classes}
    sealed = _sealing_origin(space)
    if _documents(space).bitwise and expected <= {sealed.bits_class}:
        return ""
    if (here := _computing_origin(space)) is None:
        return "the encoder that embeds here does not tell what computes its vectors"
    if expected <= {here.bits_class} and here.is_reproducible:
        return ""
    return f"its vectors come from {classes[0].describe()}; here, {here.describe()} computes other bits"


def _computing_origin(space: OpenSpace) -> Origin | None:
    """Return what embeds texts here; None for an encoder that is not isospace's own."""
    # At the first call only: reading vectors needs neither.
    from isospace.encoding.bits import computed_by
    from isospace.encoding.encoder import LoadedEncoder
    from isospace.encoding.role_encoders import encoder_of

    encoder = encoder_of(space.encoder, "document")
    if not isinstance(encoder, LoadedEncoder):
        return None
    with encoder.lock:
        return origin_of(computed_by(encoder))


def _smallest_cosine(classes: tuple[Origin, ...], space: OpenSpace) -> float:
    """Bound the cosine between vectors computed here and stored ones, by adding up angles between measured vectors.

    The ways: from here to the engine that sealed the space, from there to the encoder's reference, from there to each
    class. What was not measured counts with the encoder's tolerance, which every engine was checked against.
    """
    tolerance, sealed = space.space.record.min_cosine, _sealing_origin(space)
    here = _angle(_documents(space).cosine)
    others = [origin for origin in classes if origin.bits_class != sealed.bits_class or not origin.is_recorded]
    ways = [_angle(_or(sealed.cosine, tolerance)) + _angle(_or(origin.cosine, tolerance)) for origin in others]
    return math.cos(min(here + max(ways, default=0.0), math.pi))


def _encodes_documents(space: OpenSpace) -> bool:
    """Return whether documents can be embedded without loading and checking another encoder first."""
    return not isinstance(space.encoder, RoleEncoders) or not isinstance(space.encoder.document, DeferredEncoder)


def _documents(space: OpenSpace) -> Agreement:
    """Return how closely the documents' encoder reproduced its probes; exactly if it is not loaded and encodes none."""
    assert space.agreement is not None
    return space.agreement.by_role.get("document", Agreement(1.0, True)) if _is_pair(space) else space.agreement


def _queries(space: OpenSpace) -> list[Agreement]:
    """Return how closely an encoder of queries reproduced its probes; nothing if documents have the same one."""
    assert space.agreement is not None
    return [space.agreement.by_role["query"]] if _is_pair(space) else []


def _is_pair(space: OpenSpace) -> bool:
    return space.space.record.query_encoder is not None


def _difference_of_queries(space: OpenSpace, agreements: list[Agreement]) -> str:
    """Return why a query may have other bits elsewhere; no stored vector says it, but the probes do."""
    if not agreements:
        return ""
    sealed = _sealing_origin(space, "query_engine")
    if not sealed.is_reproducible:
        return f"queries are encoded by {sealed.describe()}, where a text's bits depend on its batch"
    if not agreements[0].bitwise:
        return f"here, the encoder of queries computes other bits than {sealed.describe()}, which sealed the space"
    return ""


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _angle(cosine: float) -> float:
    return math.acos(min(max(cosine, -1.0), 1.0))


def _sealing_origin(space: OpenSpace, name: str = "engine") -> Origin:
    """Return what computed the probes of the space; `query_engine` names what computed those of queries."""
    recorded: Any = space.space.provenance.get(name)
    return origin_of(recorded) if isinstance(recorded, dict) else Origin()
