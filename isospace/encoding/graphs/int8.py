"""Quantize a graph to int8: weights and activations in eight bits, with statically calibrated ranges.

The graph is faster on processors with int8 units. Its vectors differ from those of float32, so it is another encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isospace.encoding.backends.openvino import open_openvino
from isospace.encoding.backends.telemetry import import_nncf, import_openvino
from isospace.encoding.batching import Batch
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.graphs.export import export_graph, graph_folder, graph_paths, save_openvino, silence_exporters
from isospace.encoding.registry.model_loading import LoadedModel
from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import EncoderError, install_command

# In our measurements the ranges no longer change after a few hundred texts.
_MAX_TEXTS = 300


def quantize_graph(loaded: LoadedModel, record: EncoderRecord, texts: Sequence[str]) -> dict[str, bytes]:
    """Quantize a model's graph (post-training, static; NNCF with SmoothQuant and bias correction).

    Parameters
    ----------
    loaded
        The model.
    record
        Its identity, still without the graph.
    texts
        Documents to calibrate the ranges on; only the first 300 are used.

    Returns
    -------
    dict
        The files of the quantized graph by name.

    Raises
    ------
    EncoderError
        If nncf is not installed or cannot quantize the model.
    """
    try:
        nncf, openvino = import_nncf(), import_openvino()
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"precision int8: the package {error.name} is missing. Run: {install_command('int8')}"
        ) from error
    plain = export_graph("openvino", loaded, record)
    with graph_folder(plain) as folder:
        paths = graph_paths(folder)
        encoder = SentenceEncoder(
            record, loaded.tokenizer, open_openvino(*paths, threads=None, batch_tokens=None, precision="float32")
        )
        batches = encoder.batches(texts[:_MAX_TEXTS], "document")
        inputs = [_row(batch, row) for batch in batches for row in range(len(batch.rows))]
        with silence_exporters():
            quantized = nncf.quantize(
                openvino.Core().read_model(*paths),
                nncf.Dataset(inputs),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
            )
            return save_openvino(quantized)


def _row(batch: Batch, row: int) -> dict[str, Any]:
    single = batch.part(slice(row, row + 1))
    return {"input_ids": single.ids, "weights": single.weights}
