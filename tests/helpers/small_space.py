"""A space of eight dimensions and an encoder that needs no model: tokens and vectors follow from the letters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isospace.encoding.registry.record import EncoderRecord, FileRecord, write_encoder_record
from isospace.storage import paths as layout
from isospace.storage.store import Store
from isospace.transform.affine import ROLES, Role
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.fixed_point import to_fixed_point
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.probes import Arrays, ProbeTexts, Windows, make_probes
from isospace.transform.quantizer_set import fit_quantizers
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.space import Space, read_space, seal_space
from isospace.transform.spec import FitSpec, TransformSpec
from isospace.transform.transform import Transform, TransformResult, apply_transform

DIMENSION = 8
SPEC = TransformSpec.model_validate(
    {"fit": {"kind": "center", "means": "by_role"}, "representations": ["float32", "int8"]}
)


def record(**changes: Any) -> EncoderRecord:
    """Return the identity of an encoder of `DIMENSION` dimensions that takes 400 tokens."""
    given: dict[str, Any] = {
        "files": {"model.safetensors": FileRecord(size=7, sha256=hashlib.sha256(b"weights").hexdigest())},
        "dimension": DIMENSION,
        "max_tokens": 400,
        "dtype": "float32",
        "modules": ("Transformer", "Pooling"),
        "normalizes": False,
        "prompts": {"document": "", "query": ""},
        "prompt_tokens": {"document": 0, "query": 0},
        "pooling": ("mean",),
    }
    return EncoderRecord(**{**given, **changes})


@dataclass(frozen=True)
class LetterEncoder:
    """Tokens are words; a vector follows from the text and its role."""

    record: EncoderRecord

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        return [[int(hashlib.sha256(w.encode()).hexdigest()[:4], 16) for w in text.split(" ")] for text in texts]

    def inputs(self, texts: Sequence[str], role: Role) -> list[list[np.ndarray]]:
        return [[np.array([ids], np.int32)] for ids in LetterEncoder.tokenize(self, texts, role)]

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> np.ndarray:
        raise AssertionError("has no windows")

    def encode(self, texts: Sequence[str], role: Role) -> np.ndarray:
        seeds = [int(hashlib.sha256(f"{role} {text}".encode()).hexdigest()[:8], 16) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds]
        return np.array(rows, np.float32).reshape(len(texts), DIMENSION)


def transform(
    *, representations: Sequence[object] = ("float32", "int8"), normalization: str = "l2", cells: int | None = None
) -> Transform:
    """Return a transform that moves documents and queries by different means; `cells` is the number of its cells."""
    sample = np.random.default_rng(0).normal(size=(300, DIMENSION)).astype(np.float32)
    offsets = np.stack([np.full(DIMENSION, 0.5), np.linspace(-1.0, 1.0, DIMENSION)])
    affine = to_fixed_point(np.eye(DIMENSION), offsets, sample)
    specs = TransformSpec.model_validate({"representations": list(representations)}).representations
    plain = Transform(affine, normalization, fit_quantizers(sample, ()))  # type: ignore[arg-type]
    vectors: TransformResult = apply_transform(plain, sample, "document")
    made = Transform(affine, plain.normalization, fit_quantizers(vectors.vectors, specs))
    if cells is None:
        return made
    fitted = fit_cells(CellsSpec(count=cells), vectors.vectors, cells, spherical=normalization == "l2")
    return replace(made, cells=fitted.quantizer)


def probes_of(made: Transform, encoder: LetterEncoder) -> Arrays:
    everything = tuple(range(len(PROBE_TEXTS)))
    return make_probes(made, encoder, ProbeTexts(PROBE_TEXTS, dict.fromkeys(ROLES, everything)))


def sealed(
    made: Transform | None = None, probes: Arrays | None = None, *, encoder: EncoderRecord | None = None, **changes: Any
) -> tuple[str, dict[str, bytes]]:
    """Return the ID and the files of a space."""
    used = made or transform()
    identity = encoder or record()
    names = [s.kind for s in used.quantizers.specs]
    spec = TransformSpec.model_validate(
        {
            "fit": {"kind": "center", "means": "by_role"},
            "representations": names,
            "normalization": used.normalization,
            "cells": None if used.cells is None else used.cells.count,
        }
    )
    given: dict[str, Any] = {
        "encoder_id": identity.encoder_id,
        "spec": spec,
        "fitted": FitSpec(kind="center", means="by_role"),
        "normalizes": False,
        "transform": used,
        "probes": probes or probes_of(used, LetterEncoder(identity)),
        "promise": "within tolerance",
        "min_cosine": 0.9999,
        "provenance": {"run_id": "r"},
    }
    return seal_space(**{**given, **changes})


def small_space(**given: Any) -> Space:
    """Return an opened space."""
    space_id, files = sealed(**given)
    return read_space(files, space_id=space_id)


def store_space(store: Store, encoder: EncoderRecord | None = None) -> str:
    """Write a space and the identity of its encoder into a store; return the space's ID."""
    identity = encoder or record()
    space_id, files = sealed(encoder=identity)
    for name, data in files.items():
        store.write(f"{layout.space_folder(space_id)}/{name}", data)
    write_encoder_record(store, identity)
    return space_id
