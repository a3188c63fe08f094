"""Configuration of the encoder: model, prompts, windows, precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import Precision
from isospace.storage.spec import SpecModel


class PromptsSpec(SpecModel):
    """What is put before a text, by role."""

    document: str = ""
    """Put before every chunk."""
    query: str = ""
    """Put before every query."""


class WindowsSpec(SpecModel):
    """Overlapping windows over the tokens of a text that is longer than the encoder takes."""

    size: int | None = Field(default=None, ge=8)
    """Tokens in a window, with prompt and special tokens; the encoder's limit if empty."""
    stride: int = Field(default=128, ge=1)
    """Tokens from the start of one window to the start of the next."""
    pooling: Literal["max", "mean"] = "mean"
    """How the vectors of a text's windows become one: `max` keeps peaks, `mean` weighs all windows alike."""


class EncoderSpec(SpecModel):
    """The model that turns text into raw vectors."""

    model: str
    """A local folder, `package:NAME` for a model in an installed package, `encoder:ID` for one that is in the store, such as a
    fine-tuned one, or a hub name with `revision`."""
    revision: str | None = None
    """For a hub name: the full commit hash, 40 hexadecimal digits."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input including prompt and special tokens; the model's own limit if empty."""
    prompts: PromptsSpec | None = None
    """Prompts by role; the model's own ones if empty."""
    preset: str = "auto"
    """Entry of `configs/models.yaml` that the model is checked against; `auto` goes by its name, `none` checks nothing."""
    pooling: Pooling | None = None
    """How token vectors become one; the model's own way if empty."""
    precision: Precision = "float32"
    """What the network computes in. The others change vectors beyond the tolerance of float32: another encoder."""
    calibration: str | None = None
    """For int8: a text file, one text a line, that the ranges are calibrated on, once."""
    windows: WindowsSpec | None = None
    """For texts longer than `max_tokens`, with `chunking.kind: none`; without it they are refused or cut."""
    trust_remote_code: bool = False
    """Whether code that comes with a hub model may run."""

    @model_validator(mode="after")
    def _calibrated(self) -> EncoderSpec:
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError("precision=int8 and calibration belong together: set both or neither")
        return self
