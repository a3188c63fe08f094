"""The model of a recipe on disk, and its identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from isospace.encoding.registry.files import bytes_record, model_files
from isospace.encoding.registry.model_kind import require_dense
from isospace.encoding.registry.model_loading import LoadedModel, describe_encoder, load_model, locate_model
from isospace.encoding.registry.presets import apply_preset, check_preset, find_preset
from isospace.encoding.registry.record import FORMAT, EncoderRecord, FileRecord
from isospace.encoding.registry.router import route_folder
from isospace.encoding.registry.static_source import describe_static
from isospace.encoding.spec import EncoderSpec
from isospace.encoding.static_model import StaticModel, is_static, read_static_model
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import ConfigError
from isospace.ingest.query_files import read_lines
from isospace.storage.hashing import fingerprint
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.vectors import Float32


@dataclass(frozen=True)
class ModelSource:
    """The model of a recipe on disk; loaded only if its identity or an export is missing in the store.

    Attributes
    ----------
    spec
        `recipe.encoder`, with its preset applied.
    """

    spec: EncoderSpec
    folder: Path
    files: dict[str, FileRecord]

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model in memory; EncoderError if it is no dense encoder."""
        require_dense(self.folder)
        return load_model(self.folder, trust_remote_code=self.spec.trust_remote_code)

    @cached_property
    def is_static(self) -> bool:
        """Whether it is a static model, which is never loaded by another library than NumPy."""
        return is_static(self.folder)

    @cached_property
    def static(self) -> StaticModel:
        """The static model in memory."""
        require_dense(self.folder)
        return read_static_model(self.folder)

    @cached_property
    def torch_vectors(self) -> dict[str, dict[Role, Float32]]:
        """What torch computed from this model in float32 so far, by name, so that no export computes it again."""
        return {}

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer as isospace runs it."""
        return self.static.tokenizer if self.is_static else self.loaded.tokenizer

    @cached_property
    def record(self) -> EncoderRecord:
        """The encoder's identity, which requires loading the model."""
        if self.is_static:
            return describe_static(self.files, self.static, self.spec)
        plain = describe_encoder(self.files, self.loaded, self.spec)
        check_preset(self.spec, plain, self.loaded.model)
        if self.spec.precision != "int8":
            return plain
        return plain.model_copy(update={"graph": {name: bytes_record(data) for name, data in self.quantized.items()}})

    @cached_property
    def quantized(self) -> dict[str, bytes]:
        """The calibrated int8 graph, as files by name."""
        from isospace.encoding.graphs.int8 import quantize_graph

        plain = describe_encoder(self.files, self.loaded, self.spec)
        return quantize_graph(self.loaded, plain, _calibration(self.spec))

    @property
    def key(self) -> str:
        """Fingerprint of what determines the identity, without loading the model."""
        settings = self.spec.model_dump(
            mode="json", exclude={"kind", "model", "revision", "preset", "calibration", "trust_remote_code"}
        )
        files = {name: record.sha256 for name, record in self.files.items()}
        calibration = hashlib.sha256("\n".join(_calibration(self.spec)).encode()).hexdigest()
        # A preset is checked when the model is loaded, so a changed preset must load it again.
        preset = entry.model_dump(mode="json") if (entry := find_preset(self.spec)) else None
        return fingerprint(
            {"format": FORMAT, "files": files, "asked": settings, "calibration": calibration, "preset": preset}
        )


def find_source(spec: EncoderSpec, store: Store | None = None, role: Role = "document") -> ModelSource:
    """Locate the model of a recipe, apply its preset, and hash its files.

    `store` is for `encoder:ID`; of a Router model, the route of the role is taken.
    """
    # Before locating the model, which may be a download.
    with_preset = apply_preset(spec)
    folder = route_folder(locate_model(spec, store), role)
    return ModelSource(with_preset, folder, model_files(folder))


def _calibration(spec: EncoderSpec) -> list[str]:
    if spec.calibration is None:
        return []
    try:
        lines = read_lines(Path(spec.calibration))
    except ConfigError as error:
        raise ConfigError(f"recipe.encoder.calibration: {error}") from error
    texts = [line.strip() for line in lines if line.strip()]
    if len(texts) < 32:
        raise ConfigError(
            f"recipe.encoder.calibration = {spec.calibration!r}: holds {len(texts)} texts; expected at least 32, one "
            "per line, and better 300. Add texts like those that will be embedded."
        )
    return texts
