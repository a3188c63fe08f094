"""Stored vectors changed behind the store's back, with every hash corrected: what a writer with a fault would leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from isospace.collection.alias import resolve
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.store import Store
from isospace.transform.affine import ROLES
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.probes import probe_texts
from isospace.transform.space import DOCUMENT, PROBES, SpaceRecord


def forge_vectors(
    store: Store,
    collection: str,
    change: Callable[[np.ndarray], np.ndarray],
    *,
    part: int = 0,
    alias: str = "production",
) -> None:
    """Change the float32 vectors of one part of a local snapshot."""
    assert store.root is not None
    manifest = resolve(store, collection, alias)
    path = store.root / manifest.parts[part].segment.path
    table = pq.read_table(path)
    width = table["vector"].type.list_size
    vectors = np.stack(table["vector"].to_numpy()).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(change(vectors).reshape(-1).astype(np.float32)), width)
    place = table.column_names.index("vector")
    pq.write_table(table.set_column(place, table.schema.field(place), values), path)
    data = path.read_bytes()
    ref = manifest.parts[part].segment.model_copy(update={"size": len(data), "sha256": sha256(data)})
    parts = list(manifest.parts)
    parts[part] = parts[part].model_copy(update={"segment": ref})
    # The lexical index is bound to the files it was built from: it would refuse first.
    shutil.rmtree(store.root / "collections" / collection / "lexical", ignore_errors=True)
    forged = manifest.model_copy(update={"parts": tuple(parts)})
    target = store.root / "collections" / collection / "snapshots" / f"{manifest.sequence:08d}.json"
    target.write_bytes(seal(forged.model_dump(mode="json")))


def as_format_2(files: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """Rewrite a space as an earlier version sealed it: 16 fixed texts by number, none of which is cut."""
    arrays = safetensors.numpy.load(files[PROBES])
    texts = probe_texts(arrays)
    fixed = [
        (number, text)
        for number, text in enumerate(PROBE_TEXTS)
        if all(texts.index(text) in arrays[f"{role}.encoded"] for role in ROLES)
        and all(arrays[f"{role}.windows"][texts.index(text)] == 1 for role in ROLES)
    ]
    old = {"texts": np.array([number for number, _ in fixed], np.int64)}
    for role in ROLES:
        places = [texts.index(text) for _, text in fixed]
        tokens = np.split(arrays[f"{role}.tokens"], np.cumsum(arrays[f"{role}.lengths"])[:-1])
        old[f"{role}.tokens"] = np.concatenate([tokens[place] for place in places])
        old[f"{role}.lengths"] = arrays[f"{role}.lengths"][places]
        rows = [arrays[f"{role}.encoded"].tolist().index(place) for place in places]
        added = {"tokens", "lengths", "windows", "input_lengths", "inputs", "encoded", "joined"}
        names = [name for name in arrays if name.startswith(f"{role}.") and name.partition(".")[2] not in added]
        old |= {name: np.ascontiguousarray(arrays[name][rows]) for name in names}
    body = unseal(files[DOCUMENT], name=DOCUMENT)
    probes = safetensors.numpy.save(old)
    body["record"] |= {"format": 2, "probes_sha256": sha256(probes)}
    body["provenance"].pop("probes", None)
    body["space_id"] = SpaceRecord.model_validate(body["record"]).space_id
    return str(body["space_id"]), {**files, DOCUMENT: seal(body), PROBES: probes}
