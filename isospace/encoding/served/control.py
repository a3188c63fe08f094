"""A text that goes with every request of a run, so that no answer of another model is ever stored.

A provider can change the model, or a gateway drop the parameter of the role, in the middle of a run, and the answers
look as before. The vector of the control text then differs from the one that was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from isospace.encoding.served.faults import ANOTHER_MODEL, Outcome
from isospace.encoding.served.parsing import Parsed
from isospace.transform.affine import Role
from isospace.transform.vectors import Float32, row_cosines


@dataclass(frozen=True)
class Control:
    """The text, and what its vectors must be.

    Parameters
    ----------
    text
        The text; it is the last one of each request.
    vectors
        By role, its (d,) float32 raw vector when the encoder was registered.
    min_cosine
        Smallest cosine with it that the provider's noise explains.
    """

    text: str
    vectors: Mapping[Role, Float32]
    min_cosine: float

    def checked(self, outcome: Outcome, role: Role) -> Outcome:
        """Return the outcome of a request without the control text; a wrong answer if its vector has changed."""
        parsed = outcome.parsed
        if parsed is None:
            return outcome
        place = len(parsed.vectors) - 1
        if (reason := parsed.unusable.get(place)) is None:
            reason = self._difference(parsed.vectors[place], role)
        if reason:
            what = f"the vector of a control text is wrong in role {role}: {reason}"
            return replace(outcome, kind="wrong", reason=what, parsed=None)
        rest = Parsed(
            parsed.vectors[:place],
            {row: why for row, why in parsed.unusable.items() if row != place},
            tuple(row for row in parsed.truncated if row != place),
            parsed.model,
        )
        return replace(outcome, parsed=rest)

    def _difference(self, vector: Float32, role: Role) -> str:
        expected = self.vectors[role]
        if vector.shape != expected.shape:
            return f"{len(vector)} dimensions; expected {len(expected)}"
        cosine = float(row_cosines(expected[None], vector[None])[0])
        if cosine >= self.min_cosine:
            return ""
        others = (other for name, other in self.vectors.items() if name != role)
        swapped = any(float(row_cosines(other[None], vector[None])[0]) >= self.min_cosine for other in others)
        cause = (
            "it is that of the other role, so that a gateway may drop the parameters of the role"
            if swapped
            else ANOTHER_MODEL
        )
        return f"cosine {cosine:.6f} with the one at the registration, expected at least {self.min_cosine:.6f}; {cause}"


def with_control(texts: tuple[str, ...], control: Control | None) -> tuple[str, ...]:
    """Return the texts of a request, with the control text behind them."""
    return texts if control is None else (*texts, control.text)
