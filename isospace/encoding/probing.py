"""The probes of a space: texts chosen for its encoder, and which of its stages they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from isospace.encoding.encoder import Encoder, LoadedEncoder, truncation_is_meant
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.role_encoders import RoleEncoders, record_of, sentence_encoder_of
from isospace.encoding.served.faults import AFTER_A_CHANGE, ANOTHER_MODEL
from isospace.encoding.tokenizer import Offsets, Tokenizer
from isospace.encoding.tokenizer_rules import noticing_texts, rule_texts
from isospace.errors import FitError
from isospace.transform.affine import ROLES, Role, apply_affine
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from isospace.transform.probes import Agreement, Arrays, ProbeTexts, check_encoder, make_probes
from isospace.transform.space import Space
from isospace.transform.spec import FitSpec
from isospace.transform.transform import CELLS, Transform, apply_transform

# Encoding more tokens would make opening a space slow on a CPU. Texts that are longer are cut and not encoded.
_ENCODED_TOKENS = 1024
_PARAGRAPH = (
    "Paragraph {0} tells a reader what part {0} of a text says (第{0}部分), and how it follows from the one before. "
)


@dataclass(frozen=True, slots=True)
class ChosenTexts:
    """Texts for the probes of an encoder, or of one for each role.

    Attributes
    ----------
    idle
        Rules of the tokenizer that change no text, as far as was found.
    """

    probes: ProbeTexts
    idle: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    """An encoder, the roles that it encodes, and how their stages are told from those of another one."""

    encoder: LoadedEncoder
    roles: tuple[Role, ...]
    label: str


def _members(encoder: Encoder) -> list[_Member]:
    """Return the encoders: a single one has both roles."""
    if not isinstance(encoder, RoleEncoders):
        return [_Member(sentence_encoder_of(encoder, "document"), ROLES, "")]
    return [_Member(sentence_encoder_of(encoder, role), (role,), f" ({role})") for role in ROLES]


def choose_texts(encoder: Encoder) -> ChosenTexts:
    """Choose the probe texts for an encoder, or for one of each role.

    They contain what each rule of a tokenizer changes, and texts that a limit cuts, or cuts into windows. With two
    encoders, both get the texts of both.
    """
    members = _members(encoder)
    of_rules = [text for member in members for text in rule_texts(member.encoder.tokenizer.data)]
    known = [*PROBE_TEXTS, *TOKENIZER_TEXTS, *of_rules]
    noticed = [noticing_texts(member.encoder.tokenizer, known) for member in members]
    idle = dict.fromkeys(
        f"{rule}{one.label}" for one, (_, rules) in zip(members, noticed, strict=True) for rule in rules
    )
    found = [text for texts, _ in noticed for text in texts]
    texts = _with_tokens(encoder, list(dict.fromkeys([*known, *found])))
    long_texts = [_long_texts(member.encoder) for member in members]
    cut = long_texts[0][0]
    short = [text for text in PROBE_TEXTS if text in set(texts)]
    encoded: dict[Role, list[str]] = {"document": short, "query": short}
    # A served encoder cuts nothing: its provider would refuse the text.
    documents = members[0].encoder.record
    if documents.served is None and _tokens_to_encode(documents) <= _ENCODED_TOKENS:
        # It replaces the longest of the others. Long texts are documents: queries are rarely cut.
        short = [text for text in short if text != PROBE_TEXTS[-1]]
        encoded = {"document": [*short, cut], "query": short}
    texts = list(dict.fromkeys([*texts, *(text for pair in long_texts for text in pair)]))
    place = {text: number for number, text in enumerate(texts)}
    chosen: dict[Role, tuple[int, ...]] = {role: tuple(place[text] for text in encoded[role]) for role in ROLES}
    windowed = tuple(role for role in ROLES if record_of(encoder, role).windows is not None)
    return ChosenTexts(ProbeTexts(tuple(texts), chosen, windowed), tuple(idle))


def record_probes(encoder: Encoder, transform: Transform, fitted: FitSpec) -> tuple[Arrays, dict[str, object]]:
    """Run the probes of a new space.

    Returns
    -------
    tuple
        What `make_probes` returns, and for the provenance of the space: how many texts there are, the stages that
        they exercise, and rules of the tokenizer that change none of them.

    Raises
    ------
    FitError
        If a stage that is configured changes no probe: later, nobody would notice that it was left out.
    """
    chosen = choose_texts(encoder)
    with truncation_is_meant():
        probes = make_probes(transform, encoder, chosen.probes)
    stages = exercised_stages(encoder, transform, fitted, chosen.probes, probes)
    if missed := [name for name, exercised in stages.items() if not exercised]:
        raise FitError(
            f"the space is not sealed: its {len(chosen.probes.texts)} probes do not exercise {', '.join(missed)}, so "
            "that a change there would go unnoticed. Remove what has no effect from the recipe, or check the model: "
            "different texts must have different vectors."
        )
    encoded = {role: len(numbers) for role, numbers in chosen.probes.encoded.items()}
    described = {"texts": len(chosen.probes.texts), "encoded": encoded, "exercised": list(stages)}
    return probes, {**described, "rules_without_effect": list(chosen.idle)}


def check_probes(space: Space, encoder: Encoder, roles: Sequence[Role] = ROLES) -> Agreement:
    """Run the probes of a space through an encoder again, in some roles; see `check_encoder`."""
    served = [role for role in ROLES if record_of(encoder, role).served is not None]
    remedies = {
        role: f"Perhaps {ANOTHER_MODEL}, or a gateway changes the requests. {AFTER_A_CHANGE}" for role in served
    }
    with truncation_is_meant():
        return check_encoder(space.probes, encoder, min_cosine=space.record.tolerances, roles=roles, remedies=remedies)


def exercised_stages(
    encoder: Encoder, transform: Transform, fitted: FitSpec, texts: ProbeTexts, probes: Arrays
) -> dict[str, bool]:
    """Tell for each configured stage whether a probe shows its effect."""
    stages: dict[str, bool] = {}
    members = _members(encoder)
    for member in members:
        one, record = member.encoder, member.encoder.record
        for role in member.roles:
            if record.prompts[role]:
                tokens = one.tokenize(texts.texts, role)
                stages[f"prompt ({role})"] = tokens != one.tokenizer.ids(texts.texts)
        cut = _cutting(record, probes, member.roles)
        stages |= {f"{name}{member.label}": exercised for name, exercised in cut.items()}
        if record.served is not None:
            told = f"model {record.served.model}{member.label}"
            stages[told] = all(_differ(probes[f"{role}.raw"]) for role in member.roles)
        for module in record.modules:
            stages[f"module {module}{member.label}"] = all(_differ(probes[f"{role}.raw"]) for role in member.roles)
    normalizes = all(member.encoder.record.normalizes for member in members)
    stages |= _transforming(normalizes, transform, fitted, probes)
    for name in transform.quantizers.representations:
        stages[f"codes ({name})"] = _differ(np.concatenate([probes[f"{role}.{name}"] for role in ROLES]))
    if transform.cells is not None and _differ(np.concatenate([probes[f"{role}.{CELLS}"] for role in ROLES])):
        # Not required: all probes may lie in one cell of a corpus on another subject, and the space is right.
        stages[f"codes ({CELLS})"] = True
    return stages


def _cutting(record: EncoderRecord, probes: Arrays, roles: Sequence[Role]) -> dict[str, bool]:
    counts = [probes[f"{role}.windows"] for role in roles]
    if record.windows is not None:
        joined = [not np.allclose(probes[f"{role}.joined"], probes[f"{role}.raw"][1:2], atol=1e-4) for role in roles]
        # The stride shows from the third window on.
        return {"windows": all((number > 2).any() for number in counts), "pooling over windows": all(joined)}
    if record.served is not None:
        return {}
    lengths = [(probes[f"{role}.lengths"], probes[f"{role}.input_lengths"]) for role in roles]
    return {"truncation": all((given > kept).any() for given, kept in lengths)}


def _transforming(normalizes: bool, transform: Transform, fitted: FitSpec, probes: Arrays) -> dict[str, bool]:
    affine, stages = transform.affine, {}
    step = 2.0**-affine.output_exponent
    mapped = {role: apply_affine(affine, probes[f"{role}.raw"], role=role, normalize=False)[0] for role in ROLES}
    if fitted.kind != "none":
        for role in ROLES:
            raw = probes[f"{role}.raw"]
            same = mapped[role].shape == raw.shape and np.allclose(mapped[role], raw, rtol=0.0, atol=step)
            stages[f"transform ({role})"] = not same
    if not np.array_equal(affine.offsets[0], affine.offsets[1]):
        other = apply_transform(transform, probes["query.raw"], "document").vectors
        stages["means by role"] = not np.array_equal(other, probes["query.vectors"])
    # Unit vectors that nothing has changed stay as they are.
    unchanged = normalizes and fitted.kind == "none" and affine.output_dimension == affine.input_dimension
    if transform.normalization == "l2" and not unchanged:
        stages["normalization"] = any(not np.array_equal(mapped[r], probes[f"{r}.vectors"]) for r in ROLES)
    return stages


def _differ(rows: np.ndarray) -> bool:
    return len(np.unique(rows, axis=0)) > 1


def _with_tokens(encoder: Encoder, texts: list[str]) -> list[str]:
    """Leave out texts of which a tokenizer without special tokens and without unknown tokens keeps nothing."""
    tokens = [encoder.tokenize(texts, role) for role in ROLES]
    return [text for text, *ids in zip(texts, *tokens, strict=True) if all(ids)]


def _long_texts(encoder: LoadedEncoder) -> tuple[str, str]:
    """Return a text that is just longer than the limit, and one that is longer by far."""
    record = encoder.record
    far = 3 * record.max_tokens if record.max_tokens <= 2 * _ENCODED_TOKENS else record.max_tokens + 64
    if record.windows is not None:
        far = max(far, record.windows.size + 3 * record.windows.stride)
    around = min(len(ids) for role in ROLES for ids in encoder.tokenize([""], role))
    return _text_of(_just_longer(record) - around, encoder.tokenizer), _text_of(far, encoder.tokenizer)


def _text_of(tokens: int, tokenizer: Tokenizer) -> str:
    """Return a text with this number of tokens, without prompt and special tokens, and the rest of the last word."""
    text, numbers = "", count(1)
    offsets: Offsets = []
    # The bound on its length is for a tokenizer that knows none of its letters, and gives one token for all.
    while len(offsets) < tokens and len(text) < 1_000 * (tokens + 100):
        # Numbered, so that no window repeats another.
        text += "".join(_PARAGRAPH.format(next(numbers)) for _ in range(1 + len(text) // len(_PARAGRAPH)))
        offsets = tokenizer.offsets([text])[0]
    end = offsets[min(tokens, len(offsets)) - 1][1] if offsets else len(text)
    return text[:end] + text[end:].partition(" ")[0]


def _just_longer(record: EncoderRecord) -> int:
    # The last window shares at least half of its tokens with no other.
    return record.max_tokens + (8 if record.windows is None else min(record.windows.stride, record.windows.size // 2))


def _tokens_to_encode(record: EncoderRecord) -> int:
    """Return how many tokens the network receives for a text just longer than the limit."""
    if record.windows is None:
        return record.max_tokens
    size, stride = record.windows.size, record.windows.stride
    return size * (1 + -(-(_just_longer(record) - size) // stride))
