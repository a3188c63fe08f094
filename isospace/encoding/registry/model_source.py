"""A recipe's model on disk, and its identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from isospace.encoding.registry.files import bytes_record, model_files
from isospace.encoding.registry.model_loading import LoadedModel, describe_encoder, load_model, locate_model
from isospace.encoding.registry.presets import apply_preset, check_preset, find_preset
from isospace.encoding.registry.record import FORMAT, EncoderRecord, FileRecord
from isospace.encoding.spec import EncoderSpec
from isospace.errors import ConfigError
from isospace.storage.hashing import fingerprint
from isospace.storage.store import Store


@dataclass(frozen=True)
class Source:
    """A recipe's model on disk; loaded only where its identity or an export is not in the store yet.

    Attributes
    ----------
    spec
        The recipe's, with its preset applied.
    folder, files
        The model.
    """

    spec: EncoderSpec
    folder: Path
    files: dict[str, FileRecord]

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model in memory."""
        return load_model(self.folder, trust_remote_code=self.spec.trust_remote_code)

    @cached_property
    def record(self) -> EncoderRecord:
        """Its identity, found by loading it."""
        plain = describe_encoder(self.files, self.loaded, self.spec)
        check_preset(self.spec, plain, self.loaded.model)
        if self.spec.precision != "int8":
            return plain
        return plain.model_copy(update={"graph": {name: bytes_record(data) for name, data in self.quantized.items()}})

    @cached_property
    def quantized(self) -> dict[str, bytes]:
        """The int8 graph, calibrated."""
        from isospace.encoding.graphs.int8 import quantize_graph

        plain = describe_encoder(self.files, self.loaded, self.spec)
        return quantize_graph(self.loaded, plain, _calibration(self.spec))

    @property
    def key(self) -> str:
        """Names what decides the identity, without loading the model."""
        asked = self.spec.model_dump(
            mode="json", exclude={"model", "revision", "preset", "calibration", "trust_remote_code"}
        )
        files = {name: record.sha256 for name, record in self.files.items()}
        calibration = hashlib.sha256("\n".join(_calibration(self.spec)).encode()).hexdigest()
        # What a preset says is compared when the model is loaded: another one asks for loading it again.
        preset = found.model_dump(mode="json") if (found := find_preset(self.spec)) else None
        return fingerprint(
            {"format": FORMAT, "files": files, "asked": asked, "calibration": calibration, "preset": preset}
        )


def find_source(spec: EncoderSpec, store: Store | None = None) -> Source:
    """Find a recipe's model, in the store where it is named by its encoder, and check it against its preset."""
    # Before the model: it may have to be fetched.
    chosen = apply_preset(spec)
    folder = locate_model(spec, store)
    return Source(chosen, folder, model_files(folder))


def _calibration(spec: EncoderSpec) -> list[str]:
    if spec.calibration is None:
        return []
    try:
        lines = Path(spec.calibration).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe.encoder.calibration = {spec.calibration!r}: cannot be read ({error}).") from error
    texts = [line.strip() for line in lines if line.strip()]
    if len(texts) < 32:
        raise ConfigError(
            f"recipe.encoder.calibration = {spec.calibration!r}: holds {len(texts)} texts; expected at least 32, one a "
            "line, better 300, of the kind that is embedded."
        )
    return texts
