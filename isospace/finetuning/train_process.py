"""The training process: python -m isospace.finetuning.train_process FOLDER.

It writes its progress to stdout, one JSON object per line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from isospace.finetuning.training import DONE, HISTORY, MODEL, RUN_VARIABLE

_NAME = "held-out"
_METRIC = f"{_NAME}_cosine_ndcg@10"
_COMPLETE = "whole.json"
_CHECKPOINTS = 2


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Reports steps and evaluations, and marks complete checkpoints."""

    def __init__(self, folder: Path, spent: float) -> None:
        self._folder, self._started = folder, time.monotonic() - spent

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            _print_event({"step": state.global_step, "steps": state.max_steps, "loss": float(logs["loss"])})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        if state.is_world_process_zero:
            _print_event(
                {"step": state.global_step, "steps": state.max_steps, "ndcg": float(metrics[f"eval_{_METRIC}"])}
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A process killed while it saves leaves an incomplete checkpoint, which cannot be resumed.
        if state.is_world_process_zero:
            saved = self._folder / "checkpoints" / f"checkpoint-{state.global_step}"
            (saved / _COMPLETE).write_text(json.dumps({"seconds": time.monotonic() - self._started}), encoding="utf-8")


def main() -> None:
    """Run the training that the folder describes, from its last complete checkpoint."""
    folder = Path(sys.argv[1])
    _exit_with_parent()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    settings, loss_spec = job["training"], job["loss"]
    is_cpu = job["device"] == "cpu"
    # The seed also matters for the loss and for adapters; the trainer sets it again later.
    torch.manual_seed(settings["seed"])
    model = SentenceTransformer(
        job["base"], device=job["device"] if is_cpu else None, local_files_only=True, trust_remote_code=False
    )
    model.max_seq_length = min(settings["max_tokens"] or job["max_tokens"], job["max_tokens"])
    # The trainer lowers the precision of the computation; the weights stay float32.
    model.float()
    model.model_card_data.generate_widget_examples = False
    if settings["lora"]:
        _add_adapters(model, settings["lora"])
    data = Dataset.from_dict(pq.read_table(folder / "training.parquet").to_pydict())
    last = _last_checkpoint(folder / "checkpoints")
    spent = json.loads((last / _COMPLETE).read_text(encoding="utf-8"))["seconds"] if last else 0.0
    started = time.monotonic()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=_arguments(folder, job, len(data), is_cpu=is_cpu, is_fresh=last is None),
        train_dataset=data,
        loss=_loss(model, loss_spec),
        evaluator=_evaluator(folder, job["prompts"], settings),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=settings["patience"]), _Progress(folder, spent)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if trainer.is_world_process_zero():
        _finish(folder, trainer, job, spent + time.monotonic() - started)


def _arguments(
    folder: Path, job: dict[str, Any], pairs: int, *, is_cpu: bool, is_fresh: bool
) -> SentenceTransformerTrainingArguments:
    settings, prompts = job["training"], job["prompts"]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batch = max(1, settings["batch"] // processes)
    steps = max(1, pairs // (batch * processes))
    every = max(1, steps // settings["evaluations"])
    by_column = {"anchor": prompts["query"], "positive": prompts["document"]}
    by_column |= {f"negative_{number}": prompts["document"] for number in range(8)}
    half = not is_cpu and torch.cuda.is_available()
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=batch,
        learning_rate=settings["rate"],
        warmup_steps=settings["warm_up"],
        prompts={name: prompt for name, prompt in by_column.items() if prompt} or None,
        # A text that occurs twice in a batch would be its own negative.
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        eval_strategy="steps",
        eval_steps=every,
        # After a resume, evaluating the same weights twice would count against the patience and stop training too
        # early.
        eval_on_start=is_fresh,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=_CHECKPOINTS,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{_METRIC}",
        greater_is_better=True,
        logging_steps=max(1, every // 5),
        bf16=half and torch.cuda.is_bf16_supported(),
        fp16=half and not torch.cuda.is_bf16_supported(),
        use_cpu=is_cpu,
        seed=settings["seed"],
        data_seed=settings["seed"],
        full_determinism=False,
        dataloader_num_workers=0,
        report_to="none",
        disable_tqdm=True,
        ddp_backend="gloo" if is_cpu and processes > 1 else None,
    )


def _loss(model: SentenceTransformer, spec: dict[str, Any]) -> torch.nn.Module:
    loss: torch.nn.Module
    match spec["kind"]:
        case "ranking" if spec["cached"]:
            loss = losses.CachedMultipleNegativesRankingLoss(
                model, scale=spec["scale"], mini_batch_size=spec["cached"], gather_across_devices=_is_distributed()
            )
        case "ranking":
            loss = losses.MultipleNegativesRankingLoss(
                model, scale=spec["scale"], gather_across_devices=_is_distributed()
            )
        case "triplet":
            distance = losses.TripletDistanceMetric.COSINE
            loss = losses.TripletLoss(model, distance_metric=distance, triplet_margin=spec["triplet_margin"])
        case _:
            loss = losses.MarginMSELoss(model)
    if spec["matryoshka"]:
        own = int(model.get_embedding_dimension() or 0)
        dims = sorted({own, *(dim for dim in spec["matryoshka"] if dim < own)}, reverse=True)
        loss = losses.MatryoshkaLoss(model, loss, dims)
    return loss


def _evaluator(folder: Path, prompts: dict[str, str], settings: dict[str, Any]) -> InformationRetrievalEvaluator:
    held_out = pq.read_table(folder / "held_out.parquet").to_pydict()
    texts = pq.read_table(folder / "texts.parquet")["text"].to_pylist()
    corpus = {f"p{n}": text for n, text in enumerate(held_out["positive"])}
    corpus |= {f"t{n}": text for n, text in enumerate(texts)}
    return InformationRetrievalEvaluator(
        queries={f"q{n}": text for n, text in enumerate(held_out["anchor"])},
        corpus=corpus,
        relevant_docs={f"q{n}": {f"p{n}"} for n in range(len(held_out["anchor"]))},
        query_prompt=prompts["query"] or None,
        corpus_prompt=prompts["document"] or None,
        ndcg_at_k=[10],
        batch_size=64,
        name=_NAME,
        write_csv=False,
        main_score_function="cosine",
    )


def _add_adapters(model: SentenceTransformer, spec: dict[str, Any]) -> None:
    from peft import LoraConfig, TaskType

    model.add_adapter(
        LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=spec["rank"],
            lora_alpha=spec["alpha"],
            lora_dropout=spec["dropout"],
            target_modules="all-linear",
        )
    )


def _finish(folder: Path, trainer: SentenceTransformerTrainer, job: dict[str, Any], seconds: float) -> None:
    """Save the best weights, and mark the training as done at the very end."""
    state = trainer.state
    metrics = {"loss": "loss", "ndcg": f"eval_{_METRIC}"}
    history = [
        {"step": entry["step"], **{name: float(entry[key]) for name, key in metrics.items() if key in entry}}
        for entry in state.log_history
        if any(key in entry for key in metrics.values())
    ]
    scored = [entry for entry in history if "ndcg" in entry]
    best = max(scored, key=lambda entry: (entry["ndcg"], -entry["step"]))
    shutil.rmtree(folder / MODEL, ignore_errors=True)
    # If no step was better than the base, the base is the result.
    if best["step"]:
        _save(folder / MODEL, trainer.model, job)
    (folder / HISTORY).write_text(json.dumps(history), encoding="utf-8")
    (folder / DONE).write_text(json.dumps({"best_step": best["step"], "seconds": seconds}), encoding="utf-8")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _save(folder: Path, model: SentenceTransformer, job: dict[str, Any]) -> None:
    if job["training"]["lora"]:
        _merge_adapters(model)
    model.max_seq_length = job["max_tokens"]
    if any(job["prompts"].values()):
        # The recipe's prompts may differ from the model's own files; save them with the model.
        model.prompts = dict(job["prompts"])
    model.save_pretrained(str(folder), create_model_card=False)


def _merge_adapters(model: SentenceTransformer) -> None:
    """Merge the adapters into the weights, so that the result is a plain model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge(safe_merge=True)
                setattr(parent, name, child.get_base_layer())
    for module in model.modules():
        if hasattr(module, "_hf_peft_config_loaded"):
            module._hf_peft_config_loaded = False


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, or None; incomplete ones are deleted."""
    complete = []
    for path in folder.glob("checkpoint-*"):
        if (path / _COMPLETE).is_file():
            complete.append(path)
        else:
            shutil.rmtree(path)
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _is_distributed() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _exit_with_parent() -> None:
    """Exit when the run that started this process ends; otherwise two could write the same checkpoints."""
    # With several processes, the parent is a launcher that may outlive the run.
    parent, run = os.getppid(), int(os.environ[RUN_VARIABLE])

    def watch() -> None:
        while os.getppid() == parent and _exists(run):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _print_event(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
