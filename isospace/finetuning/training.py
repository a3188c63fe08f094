"""Train an encoder in a separate process, which can continue where a killed one stopped.

All files of the process are in one folder, named by a fingerprint of everything that determines the result. Running the
same command again finds the folder and continues.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import EncoderError, install_command
from isospace.finetuning.config import LossSpec, TrainingSpec
from isospace.finetuning.examples import Example, examples_digest
from isospace.finetuning.workdir import work_folder
from isospace.storage.hashing import fingerprint, sha256

LIBRARIES = ("torch", "transformers", "sentence-transformers", "accelerate", "datasets", "peft")
RUN_VARIABLE = "ISOSPACE_TRAINING_OF"
MODEL, HISTORY, DONE = "model", "history.json", "done.json"
_TAIL_LINES = 12
# malloc settings for the CPU. By default, every step returns its memory to the system and the next requests it again,
# which takes a sixth of the time.
_MALLOC_SETTINGS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}


@dataclass(frozen=True, slots=True)
class Job:
    """One training.

    Attributes
    ----------
    base
        Local folder of the base model.
    record
        Identity of the base encoder.
    training, held_out
        Pairs; all pairs in `training` have the same number of negatives.
    texts
        Further texts that the held-out anchors are searched in, besides the held-out positives.
    loss, spec
        Settings of the loss and of the training.
    device
        `cpu`, `cuda`, ….
    """

    base: Path
    record: EncoderRecord
    training: Sequence[Example]
    held_out: Sequence[Example]
    texts: Sequence[str]
    loss: LossSpec
    spec: TrainingSpec
    device: str

    @property
    def key(self) -> str:
        """Fingerprint of everything that determines the weights, except the machine."""
        return fingerprint(
            {
                "encoder_id": self.record.encoder_id,
                "training": examples_digest(self.training),
                "held_out": examples_digest(self.held_out),
                "texts": sha256("\n".join(self.texts).encode()),
                "loss": self.loss.model_dump(mode="json"),
                "spec": self.spec.model_dump(mode="json"),
                "device": self.device.split(":")[0],
                "libraries": library_versions(),
            }
        )


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished training.

    Attributes
    ----------
    key
        Key of the job.
    folder
        Folder of the trained model; absent if `best_step` is 0.
    history
        nDCG@10 of the held-out pairs at each evaluation, starting before the first step, and the losses.
    best_step
        Step whose weights were saved; 0 means that no step was better than the base.
    seconds
        Total duration of all attempts.
    """

    key: str
    folder: Path
    history: tuple[Mapping[str, float], ...]
    best_step: int
    seconds: float


def library_versions() -> dict[str, str]:
    """Return the versions of the training libraries.

    Raises
    ------
    EncoderError
        If one of them is not installed.
    """
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except ModuleNotFoundError as error:
            raise EncoderError(
                f"fine-tuning: the package {name} is missing. Run: {install_command('finetune')}"
            ) from error
    return versions


def train(job: Job, *, on_event: Callable[[Mapping[str, Any]], None] = lambda _: None) -> TrainingResult:
    """Start a training, continue an interrupted one, or return the result of a finished one.

    Parameters
    ----------
    job
        The training.
    on_event
        Called for every logged step and every evaluation with `step`, `steps`, and `loss` or `ndcg`.

    Raises
    ------
    EncoderError
        If the training fails; the message has the end of its log.
    """
    folder = work_folder(job.key)
    if not (folder / DONE).is_file():
        _write_job(folder, job)
        _run(folder, job, on_event)
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    history = tuple(json.loads((folder / HISTORY).read_text(encoding="utf-8")))
    return TrainingResult(job.key, folder / MODEL, history, int(done["best_step"]), float(done["seconds"]))


def _write_job(folder: Path, job: Job) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    negatives = max((len(e.negatives) for e in job.training), default=0)
    columns = {"anchor": [e.anchor for e in job.training], "positive": [e.positive for e in job.training]}
    for number in range(negatives):
        columns[f"negative_{number}"] = [e.negatives[number] for e in job.training]
    table = pa.table(columns)
    if job.loss.kind == "margin_mse":
        margins = pa.array([list(e.margins[:negatives]) for e in job.training], pa.list_(pa.float32(), negatives))
        table = table.append_column("label", margins)
    pq.write_table(table, folder / "training.parquet")
    held_out = {"anchor": [e.anchor for e in job.held_out], "positive": [e.positive for e in job.held_out]}
    pq.write_table(pa.table(held_out), folder / "held_out.parquet")
    pq.write_table(pa.table({"text": list(job.texts)}), folder / "texts.parquet")
    settings = {
        "base": str(job.base.resolve()),
        "prompts": dict(job.record.prompts),
        "max_tokens": job.record.max_tokens,
        "loss": job.loss.model_dump(mode="json"),
        "training": job.spec.model_dump(mode="json"),
        "device": job.device,
    }
    (folder / "job.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _run(folder: Path, job: Job, on_event: Callable[[Mapping[str, Any]], None]) -> None:
    """Run the training in a child process, which is killed if this process leaves early."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_DISABLED": "true"}
    environment[RUN_VARIABLE] = str(os.getpid())
    if job.device == "cpu":
        environment = {**_MALLOC_SETTINGS, **environment}
    with (
        (folder / "log.txt").open("ab") as log,
        subprocess.Popen(
            [*_launcher(job), str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
            start_new_session=True,
        ) as child,
    ):
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("{"):
                    on_event(json.loads(line))
            status = child.wait()
        finally:
            # The training must not outlive this run: a second one would write the same checkpoints.
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    if status != 0 or not (folder / DONE).is_file():
        log_file = folder / "log.txt"
        end = " | ".join(log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
        raise EncoderError(
            f"the training ended with status {status}: {end[-900:]}. Its log is {log_file}. The same command continues "
            "from the last checkpoint. If memory ran out, lower finetune.training.batch or set finetune.loss.cached."
        )


def _launcher(job: Job) -> list[str]:
    processes = job.spec.processes or _devices(job.device)
    module = ["-m", "isospace.finetuning.train_process"]
    if processes == 1:
        return [sys.executable, *module]
    # accelerate, which the trainer uses, reads its rank from the variables of torch's launcher; --standalone uses
    # loopback.
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        *module,
    ]


def _devices(device: str) -> int:
    if device != "cuda":
        return 1
    import torch

    return max(1, torch.cuda.device_count())
