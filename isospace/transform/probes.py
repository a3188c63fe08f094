"""Probes: reference texts, with the output of every stage of a space for them.

Opening a space runs the probes again and names the first stage whose output differs. The texts are fixed and do not
come from any corpus, so a space never contains a user's text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError, MismatchError
from isospace.transform.affine import ROLES, Role
from isospace.transform.quantizer_set import quantize
from isospace.transform.transform import Transform, apply_transform
from isospace.transform.vectors import row_cosines

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close the raw vectors of the probes are to the recorded ones.

    Attributes
    ----------
    cosine
        The smallest over all probes and roles.
    bitwise
        Whether all vectors are equal bit for bit.
    """

    cosine: float
    bitwise: bool


PROBE_TEXTS: tuple[str, ...] = (
    "a",
    "What is the boiling point of water at sea level?",
    "The mitochondrion is the powerhouse of the cell.",
    "how to reset a forgotten password",
    "SELECT name, COUNT(*) FROM orders WHERE year >= 2020 GROUP BY name;",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "La qualité de l'air s'est améliorée depuis 1995, mais lentement.",
    "机器学习模型将文本转换为向量。",
    "データベースの索引を再構築する。",
    "Быстрый поиск по смыслу в большом собрании документов.",
    "E = mc², α ≈ 1/137, ∑ 1/n² = π²/6",
    "  leading and trailing spaces,\ttabs\nand line breaks  ",
    "ALL CAPITALS AND Mixed Case AND lower case",
    "error: cannot open '/etc/app.conf': permission denied (errno 13)",
    "😀 emoji, ﬁ ligature, e\u0301 combining accent, \u200b zero width space",
    " ".join(["Retrieval quality falls when documents and queries are not transformed alike."] * 12),
)


def make_probes(
    transform: Transform,
    tokenize: Callable[[Sequence[str], Role], list[list[int]]],
    encode: Callable[[Sequence[str], Role], npt.NDArray[np.float32]],
    *,
    limit: int,
) -> Arrays:
    """Run the probes through every stage; leave out those with more tokens than `limit`.

    Returns
    -------
    dict
        For each role: `tokens` (int64, concatenated), `lengths` (int64), `raw` and `vectors` (float32), and the codes
        of each representation. `texts` holds the indices into `PROBE_TEXTS`.
    """
    fitting = [
        i for i, text in enumerate(PROBE_TEXTS) if all(len(tokenize([text], role)[0]) <= limit for role in ROLES)
    ]
    texts = [PROBE_TEXTS[i] for i in fitting]
    arrays: Arrays = {"texts": np.array(fitting, np.int64)}
    for role in ROLES:
        tokens = tokenize(texts, role)
        raw = encode(texts, role)
        arrays[f"{role}.tokens"] = np.array([i for ids in tokens for i in ids], np.int64)
        arrays[f"{role}.lengths"] = np.array([len(ids) for ids in tokens], np.int64)
        arrays[f"{role}.raw"] = raw
        arrays |= {f"{role}.{name}": array for name, array in _outputs(transform, raw, role).items()}
    return arrays


def check_transform(transform: Transform, probes: Mapping[str, npt.NDArray[Any]]) -> None:
    """Apply the transform to the recorded raw vectors again, and compare bit for bit.

    Raises
    ------
    MismatchError
        If a result differs; names the stage (`transform` or `codes`) and the role.
    """
    for role in ROLES:
        _require(probes, f"{role}.raw")
        for name, computed in _outputs(transform, probes[f"{role}.raw"], role).items():
            stage = "transform" if name == "vectors" else f"codes ({name})"
            _compare(stage, role, _require(probes, f"{role}.{name}"), computed)


def check_encoder(
    probes: Mapping[str, npt.NDArray[Any]],
    tokenize: Callable[[Sequence[str], Role], list[list[int]]],
    encode: Callable[[Sequence[str], Role], npt.NDArray[np.float32]],
    *,
    min_cosine: float,
) -> Agreement:
    """Encode the probes again, and compare the raw vectors with the recorded ones.

    Raises
    ------
    MismatchError
        If tokens or raw vectors differ; names the stage, the role, and the probe.
    """
    texts = [PROBE_TEXTS[i] for i in _require(probes, "texts")]
    smallest, bitwise = 1.0, True
    for role in ROLES:
        tokens = tokenize(texts, role)
        recorded = np.split(probes[f"{role}.tokens"], np.cumsum(probes[f"{role}.lengths"])[:-1])
        for text, ids, expected in zip(texts, tokens, recorded, strict=True):
            if ids != expected.tolist():
                raise MismatchError(
                    f"tokens differ for role {role}, probe {text[:40]!r}: {ids[:8]}…, but the space recorded "
                    f"{expected.tolist()[:8]}…. Use the tokenizer version that the space was created with."
                )
        raw = encode(texts, role)
        cosines = _cosines(probes[f"{role}.raw"], raw)
        bitwise = bitwise and raw.tobytes() == probes[f"{role}.raw"].tobytes()
        worst = int(cosines.argmin())
        if not cosines[worst] >= min_cosine:
            raise MismatchError(
                f"raw vectors differ for role {role}, probe {texts[worst][:40]!r}: cosine {cosines[worst]:.7f}, "
                f"expected at least {min_cosine:.7f}. The model, its weights, or its library give other results than "
                "those of the space: use the same versions."
            )
        _require_same_length(probes[f"{role}.raw"], raw, texts, role, min_cosine)
        smallest = min(smallest, float(cosines[worst]))
    return Agreement(smallest, bitwise)


def _require_same_length(
    recorded: npt.NDArray[np.float32],
    raw: npt.NDArray[np.float32],
    texts: Sequence[str],
    role: Role,
    min_cosine: float,
) -> None:
    """Compare lengths, which cosines ignore. The tolerance is the angle of `min_cosine`."""
    ratios = np.linalg.norm(raw.astype(np.float64), axis=1) / np.linalg.norm(recorded.astype(np.float64), axis=1)
    worst = int(np.abs(ratios - 1.0).argmax())
    if not abs(ratios[worst] - 1.0) <= np.sqrt(2.0 * (1.0 - min_cosine)):
        raise MismatchError(
            f"raw vectors differ for role {role}, probe {texts[worst][:40]!r}: {ratios[worst]:.5f} times as long as "
            "recorded. The encoder normalizes differently or not at all: use the encoder of the space."
        )


def _outputs(transform: Transform, raw: npt.NDArray[np.float32], role: Role) -> Arrays:
    vectors = apply_transform(transform, raw, role).vectors
    codes: Arrays = {
        name: quantize(transform.quantizers, vectors, name) for name in transform.quantizers.representations
    }
    return {"vectors": vectors, **codes}


def _compare(stage: str, role: Role, expected: npt.NDArray[Any], computed: npt.NDArray[Any]) -> None:
    same_form = expected.dtype == computed.dtype and expected.shape == computed.shape
    if same_form and expected.tobytes() == computed.tobytes():
        return
    raise MismatchError(
        f"{stage} differs for role {role}: the recorded raw vectors of the probes no longer give the recorded result "
        "bit for bit. The fitted parameters were changed, or this version of isospace computes other results than the "
        "one that sealed the space: restore the space, or use that version."
    )


def _cosines(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if left.shape != right.shape:
        raise MismatchError(f"raw vectors have the shape {right.shape}; the space recorded {left.shape}.")
    return row_cosines(left, right)


def _require(probes: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name not in probes:
        raise IntegrityError(f"probes.safetensors lacks {name}. Restore the space, or refit it.")
    return probes[name]
