"""Configuration of the encoder: model, prompts, windows, precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import Precision
from isospace.storage.spec import SpecModel


class PromptsSpec(SpecModel):
    """Prompts, which are put before a text, by role."""

    document: str = ""
    """Prompt before every chunk."""
    query: str = ""
    """Prompt before every query."""


class WindowsSpec(SpecModel):
    """Overlapping windows over the tokens of a text that is longer than the encoder's limit."""

    size: int | None = Field(default=None, ge=8)
    """Tokens per window, including prompt and special tokens; the encoder's limit if empty."""
    stride: int = Field(default=128, ge=1)
    """Tokens from the start of one window to the start of the next."""
    pooling: Literal["max", "mean"] = "mean"
    """How the vectors of a text's windows are combined: `max` is the maximum of each dimension, `mean` the average."""


class EncoderSpec(SpecModel):
    """The model that turns text into raw vectors."""

    model: str
    """A local folder, `package:NAME` for a model in an installed package, `encoder:ID` for an encoder in the store,
    such as a fine-tuned one, or a model name on the Hugging Face Hub together with `revision`."""
    revision: str | None = None
    """For a model on the Hub: the full commit hash, 40 hexadecimal digits."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input, including prompt and special tokens; the model's own limit if empty."""
    prompts: PromptsSpec | None = None
    """Prompts by role; the model's own prompts if empty."""
    preset: str = "auto"
    """Entry of `configs/models.yaml` to check the model against; `auto` finds it by name, `none` skips the check."""
    pooling: Pooling | None = None
    """How token vectors are combined into one; the model's own pooling if empty."""
    precision: Precision = "float32"
    """Number format that the network computes in. Any other than float32 changes vectors beyond its tolerance, so it is
    another encoder."""
    calibration: str | None = None
    """For int8: a text file with one text per line, on which the value ranges are calibrated once."""
    windows: WindowsSpec | None = None
    """Windows for texts longer than `max_tokens`, with `chunking.kind: none`; without it they are rejected or cut."""
    trust_remote_code: bool = False
    """Whether code that comes with a model from the Hub may run."""

    @model_validator(mode="after")
    def _calibrated(self) -> EncoderSpec:
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError("precision=int8 and calibration belong together: set both or neither")
        return self
