"""Probes: reference texts, with the output of every stage of a space for them.

Opening a space runs the probes again and names the first stage whose output differs. All of them are tokenized and cut
as the encoder cuts them, which costs little; some of them are encoded, transformed, and quantized as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError, MismatchError
from isospace.transform.affine import ROLES, Role
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.quantizer_set import quantize
from isospace.transform.transform import CELLS, Transform, apply_transform, assign_cells
from isospace.transform.vectors import row_cosines

Arrays = dict[str, npt.NDArray[Any]]
Windows = Sequence[npt.NDArray[np.int32]]
# So many probes give one window each of the text that is joined from windows.
_JOINED = 3
_OTHER_RESULTS = (
    "The model, its weights, or its library give other results than those of the space: use the same versions."
)


class Probed(Protocol):
    """What probes need from an encoder."""

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return token IDs with prompt and special tokens, never truncated."""

    def inputs(self, texts: Sequence[str], role: Role) -> Sequence[Windows]:
        """Return what the network would receive: for each text, the tokens of each of its windows."""

    def encode(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """Return the (n, d) float32 raw vectors of n texts."""

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> npt.NDArray[np.float32]:
        """Return the (n, d) float32 raw vectors of n texts that are given by their windows."""


@dataclass(frozen=True, slots=True)
class ProbeTexts:
    """The texts of a space's probes.

    Attributes
    ----------
    texts
        All of them.
    encoded
        By role, the positions of those that are encoded.
    windowed
        The roles whose encoder pools the vectors of windows.
    """

    texts: tuple[str, ...]
    encoded: Mapping[Role, tuple[int, ...]]
    windowed: Collection[Role] = ()


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close the raw vectors of the probes are to the recorded ones.

    Attributes
    ----------
    cosine
        The smallest over all probes and roles.
    bitwise
        Whether all vectors are equal bit for bit.
    by_role
        The same for each role whose probes were encoded.
    """

    cosine: float
    bitwise: bool
    by_role: Mapping[Role, Agreement] = field(default_factory=dict, compare=False, repr=False)


def make_probes(transform: Transform, encoder: Probed, probes: ProbeTexts) -> Arrays:
    """Run the probes through every stage.

    Returns
    -------
    dict
        `text` (uint8, UTF-8, concatenated) and `text_lengths` (int64, in bytes), and for each role:

        - `tokens` (int64, concatenated) and `lengths` (int64), never truncated.
        - `windows` (int64, of each text) and `input_lengths` (int64, of each window): what the network would receive,
          with `inputs` ((n, 32) uint8), its SHA-256 for each text.
        - `encoded` (int64, positions of texts), with their `raw` and `vectors` (float32) and the codes of each
          representation, and their `cells` ((n,) uint16), if the space has cells.
        - `joined` ((1, d) float32), if the encoder uses windows: the raw vector of a text whose windows are the first
          windows of some encoded probes.
    """
    data = [text.encode() for text in probes.texts]
    arrays: Arrays = {
        "text": np.frombuffer(b"".join(data), np.uint8),
        "text_lengths": np.array([len(text) for text in data], np.int64),
    }
    for role in ROLES:
        tokens, inputs = encoder.tokenize(probes.texts, role), encoder.inputs(probes.texts, role)
        encoded = probes.encoded[role]
        raw = encoder.encode([probes.texts[i] for i in encoded], role)
        made: Arrays = {
            "tokens": np.array([i for ids in tokens for i in ids], np.int64),
            "lengths": np.array([len(ids) for ids in tokens], np.int64),
            **_described(inputs),
            "encoded": np.array(encoded, np.int64),
            "raw": raw,
            **_outputs(transform, raw, role),
        }
        if role in probes.windowed:
            made["joined"] = encoder.encode_windows([_joined_windows(inputs, encoded)], role)
        arrays |= {f"{role}.{name}": array for name, array in made.items()}
    return arrays


def probe_texts(probes: Mapping[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    """Return the texts of recorded probes; those of spaces up to format 2 are numbers of `PROBE_TEXTS`."""
    if "text" not in probes:
        return tuple(PROBE_TEXTS[i] for i in _require(probes, "texts"))
    data, ends = probes["text"].tobytes(), np.cumsum(_require(probes, "text_lengths"))
    return tuple(data[end - n : end].decode() for end, n in zip(ends, probes["text_lengths"], strict=True))


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
    encoder: Probed,
    *,
    min_cosine: float | Mapping[Role, float],
    roles: Sequence[Role] = ROLES,
    remedies: Mapping[Role, str] | None = None,
) -> Agreement:
    """Run the probes through the encoder again, and compare with what was recorded.

    Parameters
    ----------
    probes
        What `make_probes` returned.
    min_cosine
        Tolerance of the encoder, or of the encoder of each role.
    roles
        The roles to check, at least one.
    remedies
        By role, what an error says of the cause and the remedy if raw vectors differ.

    Raises
    ------
    MismatchError
        If anything differs; names the stage (tokens, truncation, windows, raw vectors, or pooling over windows), the
        role, and the probe.
    """
    texts = probe_texts(probes)
    tolerances = min_cosine if isinstance(min_cosine, Mapping) else dict.fromkeys(ROLES, min_cosine)
    for role in roles:
        _check_tokens(probes, texts, role, encoder.tokenize(texts, role))
    remedies = remedies or {}
    by_role = {
        role: _check_vectors(probes, texts, role, encoder, tolerances[role], remedies.get(role, _OTHER_RESULTS))
        for role in roles
    }
    return Agreement(min(one.cosine for one in by_role.values()), all(one.bitwise for one in by_role.values()), by_role)


def _check_vectors(
    probes: Mapping[str, npt.NDArray[Any]],
    texts: Sequence[str],
    role: Role,
    encoder: Probed,
    min_cosine: float,
    remedy: str,
) -> Agreement:
    """Compare what the network receives, and the raw vectors."""
    # Spaces up to format 2 recorded neither what the network receives nor texts that are too long for it.
    inputs = encoder.inputs(texts, role) if f"{role}.inputs" in probes else None
    if inputs is not None:
        _check_inputs(probes, texts, role, inputs)
    encoded = probes.get(f"{role}.encoded", np.arange(len(texts)))
    chosen = [texts[i] for i in encoded]
    recorded, raw = probes[f"{role}.raw"], encoder.encode(chosen, role)
    several = probes[f"{role}.windows"][encoded] > 1 if inputs is not None else np.zeros(len(chosen), bool)
    agreement = _check_raw(recorded, raw, chosen, role, min_cosine, several, remedy)
    if inputs is None or f"{role}.joined" not in probes:
        return agreement
    joined = encoder.encode_windows([_joined_windows(inputs, encoded)], role)
    name, pooled = ["several windows"], np.ones(1, bool)
    windows = _check_raw(probes[f"{role}.joined"], joined, name, role, min_cosine, pooled, remedy)
    return Agreement(min(agreement.cosine, windows.cosine), agreement.bitwise and windows.bitwise)


def _check_tokens(
    probes: Mapping[str, npt.NDArray[Any]], texts: Sequence[str], role: Role, tokens: Sequence[Sequence[int]]
) -> None:
    recorded = np.split(_require(probes, f"{role}.tokens"), np.cumsum(_require(probes, f"{role}.lengths"))[:-1])
    for text, ids, expected in zip(texts, tokens, recorded, strict=True):
        if list(ids) != (known := expected.tolist()):
            first = next((i for i, (a, b) in enumerate(zip(ids, known, strict=False)) if a != b), len(known))
            start = max(first - 2, 0)
            raise MismatchError(
                f"tokens differ for role {role}, probe {text[:40]!r}: {list(ids[start : start + 8])}… from position "
                f"{start}, but the space recorded {known[start : start + 8]}…. Use the tokenizer version that the "
                "space was created with."
            )


def _check_inputs(
    probes: Mapping[str, npt.NDArray[Any]], texts: Sequence[str], role: Role, inputs: Sequence[Windows]
) -> None:
    actual = _described(inputs)
    counts, lengths = _require(probes, f"{role}.windows"), _require(probes, f"{role}.input_lengths")
    for number in np.flatnonzero((actual["inputs"] != probes[f"{role}.inputs"]).any(axis=1)).tolist():
        known = lengths[counts[:number].sum() :][: counts[number]].tolist()
        found = [window.shape[1] for window in inputs[number]]
        several = max(len(known), len(found)) > 1
        stage = "windows differ for role" if several else "truncation differs for role"
        same = _counted(found) == _counted(known)
        other = "other ones than the space recorded" if same else f"the space recorded {_counted(known)}"
        raise MismatchError(
            f"{stage} {role}, probe {texts[number][:40]!r}: the model receives {_counted(found)}, but {other}. This "
            "version of isospace cuts long texts differently: use the version that the space was created with, or "
            "embed the collection into a new store."
        )


def _counted(lengths: Sequence[int]) -> str:
    if len(lengths) == 1:
        return f"{lengths[0]} tokens"
    return f"{len(lengths)} windows of {min(lengths)} to {max(lengths)} tokens"


def _check_raw(
    recorded: npt.NDArray[np.float32],
    raw: npt.NDArray[np.float32],
    texts: Sequence[str],
    role: Role,
    min_cosine: float,
    several: npt.NDArray[np.bool_],
    remedy: str,
) -> Agreement:
    """Compare directions and lengths; `several` tells which texts have several windows."""
    cosines = _cosines(recorded, raw)
    differs = ~(cosines >= min_cosine)
    if differs.any():
        # If only texts with several windows differ, the vectors of windows are right, and their combination is not.
        stage = "pooling over windows differs for role" if several[differs].all() else "raw vectors differ for role"
        worst = int(np.where(differs, cosines, np.inf).argmin())
        raise MismatchError(
            f"{stage} {role}, probe {texts[worst][:40]!r}: cosine {cosines[worst]:.7f}, "
            f"expected at least {min_cosine:.7f}. {remedy}"
        )
    _require_same_length(recorded, raw, texts, role, min_cosine)
    return Agreement(min(1.0, float(cosines.min(initial=1.0))), raw.tobytes() == recorded.tobytes())


def _described(inputs: Sequence[Windows]) -> Arrays:
    return {
        "windows": np.array([len(windows) for windows in inputs], np.int64),
        "input_lengths": np.array([window.shape[1] for windows in inputs for window in windows], np.int64),
        "inputs": np.array([list(_digest(windows)) for windows in inputs], np.uint8),
    }


def _digest(windows: Windows) -> bytes:
    digest = hashlib.sha256()
    for window in windows:
        digest.update(np.array(window.shape, "<i8").tobytes() + np.ascontiguousarray(window, "<i4").tobytes())
    return digest.digest()


def _joined_windows(inputs: Sequence[Windows], encoded: Sequence[int] | npt.NDArray[np.int64]) -> Windows:
    # The very first probe is a single letter.
    return [inputs[i][0] for i in encoded[1 : 1 + _JOINED]]


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
    if transform.cells is not None:
        codes[CELLS] = assign_cells(transform, vectors)
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
