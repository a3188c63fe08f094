"""Train an encoder in a process of its own, which goes on where a killed one stopped.

What the process needs lies in one folder, named after everything that decides the result: the same command finds it
again.
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
from isospace.finetuning.examples import Example, digest_of
from isospace.finetuning.workdir import work_folder
from isospace.storage.hashing import fingerprint, sha256

LIBRARIES = ("torch", "transformers", "sentence-transformers", "accelerate", "datasets", "peft")
RUN_VARIABLE = "ISOSPACE_TRAINING_OF"
MODEL, HISTORY, DONE = "model", "history.json", "done.json"
_TAIL_LINES = 12
# A step's arrays are given back to the system and asked for again by the next one otherwise: on a CPU a sixth of the
# time.
_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}


@dataclass(frozen=True, slots=True)
class Job:
    """One training.

    Attributes
    ----------
    base
        Local folder of the model that it starts from.
    record
        Its identity.
    training, held_out
        Pairs; those of `training` with as many negatives each.
    texts
        What the held-out anchors are searched in, besides their positives.
    loss, spec
        How.
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
        """Fingerprint of everything that decides the weights, but for the machine."""
        return fingerprint(
            {
                "encoder_id": self.record.encoder_id,
                "training": digest_of(self.training),
                "held_out": digest_of(self.held_out),
                "texts": sha256("\n".join(self.texts).encode()),
                "loss": self.loss.model_dump(mode="json"),
                "spec": self.spec.model_dump(mode="json"),
                "device": self.device.split(":")[0],
                "libraries": library_versions(),
            }
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training.

    Attributes
    ----------
    key
        Of the job.
    folder
        The model; not there if `best_step` is 0.
    history
        nDCG@10 of the held-out pairs at each evaluation, the first before any step, and the losses.
    best_step
        Whose weights these are; 0 are those of the base.
    seconds
        What it took, all attempts together.
    """

    key: str
    folder: Path
    history: tuple[Mapping[str, float], ...]
    best_step: int
    seconds: float


def library_versions() -> dict[str, str]:
    """Return the versions of what trains.

    Raises
    ------
    EncoderError
        If one of them is not installed.
    """
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError as error:
            raise EncoderError(
                f"fine-tuning: the package {name} is missing. Run: {install_command('finetune')}"
            ) from error
    return found


def train(job: Job, *, tell: Callable[[Mapping[str, Any]], None] = lambda _: None) -> Trained:
    """Train, or go on with a training that was cut off, or return one that is done.

    Parameters
    ----------
    job
        What.
    tell
        Given every step that is logged and every evaluation: `step`, `steps`, `loss` or `ndcg`.

    Returns
    -------
    Trained

    Raises
    ------
    EncoderError
        If the training fails; the message has the end of what it wrote.
    """
    folder = work_folder(job.key)
    if not (folder / DONE).is_file():
        _write_job(folder, job)
        _run(folder, job, tell)
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    history = tuple(json.loads((folder / HISTORY).read_text(encoding="utf-8")))
    return Trained(job.key, folder / MODEL, history, int(done["best_step"]), float(done["seconds"]))


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


def _run(folder: Path, job: Job, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Run the training in a process that ends with this one's pipe."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_DISABLED": "true"}
    environment[RUN_VARIABLE] = str(os.getpid())
    if job.device == "cpu":
        environment = {**_KEPT_MEMORY, **environment}
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
                    tell(json.loads(line))
            status = child.wait()
        finally:
            # Whatever ends this run ends the training with it: two would write the same checkpoints.
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    if status != 0 or not (folder / DONE).is_file():
        log_file = folder / "log.txt"
        end = " | ".join(log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
        raise EncoderError(
            f"the training ended with status {status}: {end[-900:]}. Its log is {log_file}. The same command goes on "
            "from its last checkpoint; if memory ran out, lower finetune.training.batch or set finetune.loss.cached."
        )


def _launcher(job: Job) -> list[str]:
    processes = job.spec.processes or _devices(job.device)
    module = ["-m", "isospace.finetuning.train_process"]
    if processes == 1:
        return [sys.executable, *module]
    # The trainer's accelerate finds its place in what torch's own launcher sets; rendezvous on loopback.
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
