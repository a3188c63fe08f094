"""What decides the bits of a worker's raw vectors: engine, version, instruction set, precision, and a fingerprint.

Names and versions do not decide it alone: a setting of the environment or another processor changes the kernels that an
engine selects. Each worker therefore encodes the same few texts and records the hash of the bits that came out.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isospace.encoding.encoder import LoadedEncoder

_SENTENCE = "Vectors of one text have equal bits only if the same kernels computed them. "
# Of different lengths, since kernels are selected by the shape of a call. Fixed: another list gives other fingerprints,
# so that a change needs another version.
BITS_TEXTS: tuple[str, ...] = ("a", "How long is a day on Mars?", 2 * _SENTENCE, 7 * _SENTENCE)
_VERSION = b"isospace bits 1"


def computed_by(encoder: LoadedEncoder) -> dict[str, str]:
    """Describe what decides the bits of an encoder's raw vectors.

    The texts are encoded at the first call; later calls return the same description.

    Returns
    -------
    dict
        What the backend says of itself (`engine`, `device`, `processor`, `instructions`, `precision`), and `bits`, the
        fingerprint; `batch_invariant`, whether a text's bits are the same in every batch; and `cosine`, the smallest of
        a probe with the encoder's reference, if it was measured.
    """
    if "bits" not in encoder.known:
        fingerprint = bits_fingerprint(encoder)
        # After the texts, because OpenVINO selects kernels when it first computes.
        engine = encoder.backend.engine()
        invariant = str(encoder.backend.is_batch_invariant).lower()
        encoder.known.update({**engine, "batch_invariant": invariant, "bits": fingerprint})
    return dict(encoder.known)


def bits_fingerprint(encoder: LoadedEncoder) -> str:
    """Return the SHA-256 of the raw vectors of `BITS_TEXTS`; texts beyond the encoder's limit are left out."""
    limit = encoder.record.max_tokens
    lengths = [len(ids) for ids in encoder.tokenize(BITS_TEXTS, "document")]
    fitting = [text for text, length in zip(BITS_TEXTS, lengths, strict=True) if length <= limit]
    vectors = encoder.encode(fitting or BITS_TEXTS[:1], "document")
    return hashlib.sha256(_VERSION + vectors.astype("<f4").tobytes()).hexdigest()


def note_cosine(encoder: LoadedEncoder, cosine: float) -> None:
    """Keep the smallest cosine of a probe with the encoder's reference, for `computed_by`."""
    encoder.known["cosine"] = repr(cosine)
