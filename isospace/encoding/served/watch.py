"""What stays the same while a client lives: the dimension, the reported model, and that vectors differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from isospace.encoding.served.parsing import Parsed
from isospace.errors import ProviderAnswerError

# So many different texts in a row with one and the same vector are a fault: two may be unknown to a small vocabulary.
_SAME = 3


@dataclass
class Watch:
    """Compares each answer with those before; `name` stands before every message. Used by one thread."""

    name: str
    expected: int | None
    dimension: int | None = None
    model: str | None = None
    _vector: bytes = b""
    _texts: set[str] = field(default_factory=set)

    def accept(self, parsed: Parsed, texts: Sequence[str]) -> None:
        """Check an answer to texts.

        Raises
        ------
        ProviderAnswerError
            If the dimension or the reported model differs, or different texts have one and the same vector.
        """
        self._require_dimension(parsed.vectors.shape[1])
        self.report(parsed.model)
        self._require_different(parsed, texts)

    def report(self, model: str | None) -> None:
        """Record the model that the provider says it used; another one than before is an error."""
        if model is None:
            return
        if self.model is not None and model != self.model:
            raise ProviderAnswerError(
                f"{self.name}: answers with the model {model!r}, and answered with {self.model!r} before; expected one "
                "model. Vectors of both cannot be compared: pin the model's version, or embed everything again."
            )
        self.model = model

    def _require_dimension(self, found: int) -> None:
        expected = self.expected or self.dimension
        if expected is not None and found != expected:
            why = "as requested" if self.expected else "as in earlier answers"
            raise ProviderAnswerError(
                f"{self.name}: vectors of {found} dimensions; expected {expected}, {why}. Check model and dimensions."
            )
        self.dimension = found

    def _require_different(self, parsed: Parsed, texts: Sequence[str]) -> None:
        for row, text in enumerate(texts):
            # What a tokenizer may drop or fold says nothing: case, spaces, punctuation, emoji.
            plain = "".join(character for character in text.casefold() if character.isalnum())
            if not plain or row in parsed.unusable:
                continue
            vector = np.ascontiguousarray(parsed.vectors[row]).tobytes()
            if vector != self._vector:
                self._vector, self._texts = vector, set()
            if len(self._texts) < _SAME:
                self._texts.add(plain)
            if len(self._texts) >= _SAME:
                raise ProviderAnswerError(
                    f"{self.name}: {_SAME} different texts in a row have one and the same vector; expected different "
                    "vectors. The server ignores its input: check it, and the model that it serves."
                )
