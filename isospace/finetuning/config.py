"""Configuration of a fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.config_files import read_config
from isospace.storage.spec import Name, SpecModel


class CorpusPairs(SpecModel):
    """Pairs made from the documents themselves."""

    kind: Literal["titles", "headings", "sentences"]
    """Anchors are titles, headings, or sentences; the positive is the body, the section, or the rest of the chunk."""
    most: int = Field(default=20_000, ge=1)
    """Maximum number of pairs, one per document."""


class JudgedPairs(SpecModel):
    """Pairs of judged queries and the documents that answer them."""

    kind: Literal["judged"]
    queries: str
    """File or folder of queries, as for `isospace sets add`."""
    judgements: str | None = None
    """File with query_id, doc_id, relevance."""
    split: str = "train"
    """Split of a BEIR folder whose judgements are used."""


class FilePairs(SpecModel):
    """Pairs from a file."""

    kind: Literal["file"]
    path: str
    """JSON lines or a table with the columns anchor and positive; negative, doc_id, and origin are optional."""


class GeneratedPairs(SpecModel):
    """Questions about chunks that a language model generates."""

    kind: Literal["generated"]
    endpoint: str
    """Base URL of an OpenAI-compatible API, or `local:FOLDER` for a local seq2seq model."""
    model: str
    """Name of the model at the endpoint."""
    template: str = "Write {count} questions that the following text answers. One a line, without numbers.\n\n{text}"
    """Prompt for the model; {count} and {text} are filled in."""
    count: int = Field(default=5, ge=1, le=20)
    """Number of questions per chunk."""
    most: int = Field(default=1_000, ge=1)
    """Maximum number of chunks to generate questions for, one per document."""
    key_variable: str | None = None
    """Environment variable with the API key; no key is sent if empty."""
    found_within: int = Field(default=20, ge=1)
    """A question is kept if the base model ranks its document this high or higher; others ask about something else."""


PairsSpec = Annotated[CorpusPairs | JudgedPairs | FilePairs | GeneratedPairs, Field(discriminator="kind")]


class NegativesSpec(SpecModel):
    """Hard negatives: texts that look like answers but are not."""

    sources: tuple[Literal["lexical", "dense"], ...] = ("lexical", "dense")
    """BM25 (`lexical`), and the base model in the collection's space (`dense`), besides the other pairs of a batch."""
    count: int = Field(default=1, ge=0, le=8)
    """Number of hard negatives per anchor; pairs with fewer are left out."""
    ranks: tuple[int, int] = (5, 50)
    """First and last rank of candidates; texts above the first rank are too often unjudged answers."""
    margin: float = Field(default=0.05, ge=0.0, le=1.0)
    """A candidate's cosine must be lower than the positive's by at least this share of it (arXiv:2407.15831)."""
    duplicate: float = Field(default=0.95, gt=0.0, le=1.0)
    """A candidate with at least this cosine to the positive is a near-duplicate, and is left out."""
    reranker: str | None = None
    """Folder of a cross-encoder that also filters candidates, and is the teacher with `loss.kind: margin_mse`."""

    @model_validator(mode="after")
    def _ordered(self) -> NegativesSpec:
        first, last = self.ranks
        if not 1 <= first <= last <= 1_000:
            raise ValueError(f"negatives.ranks = [{first}, {last}]: expected 1 <= first <= last <= 1000")
        if self.count and not self.sources:
            raise ValueError("negatives.sources is empty: name lexical or dense, or set negatives.count to 0")
        return self


class LossSpec(SpecModel):
    """The loss that training minimizes."""

    kind: Literal["ranking", "triplet", "margin_mse"] = "ranking"
    """MultipleNegativesRanking on (anchor, positive[, negatives]), Triplet, or MarginMSE with a cross-encoder."""
    scale: float = Field(default=20.0, gt=0.0)
    """For ranking: factor of the cosines, the inverse of the temperature."""
    cached: int | None = Field(default=None, ge=1)
    """For ranking: number of texts computed at once, for batches larger than memory (GradCache, arXiv:2101.06983)."""
    triplet_margin: float = Field(default=0.2, gt=0.0)
    """For triplet: margin by which the cosine distance to the negative must exceed that to the positive."""
    matryoshka: tuple[int, ...] = ()
    """Further dimensions that the loss is computed at, besides the full vector (Matryoshka, arXiv:2205.13147)."""

    @model_validator(mode="after")
    def _fitting(self) -> LossSpec:
        if self.cached is not None and self.kind != "ranking":
            raise ValueError(f"loss.cached with loss.kind={self.kind}: is for loss.kind=ranking only; leave it out")
        if self.matryoshka and self.kind == "margin_mse":
            raise ValueError(
                "loss.matryoshka with loss.kind=margin_mse: a teacher's margins hold for full vectors only; "
                "leave one out"
            )
        return self


class LoraSpec(SpecModel):
    """Low-rank adapters (arXiv:2106.09685) instead of all weights, into which they are merged at the end."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the adapters; they are multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in the adapters."""


class TrainingSpec(SpecModel):
    """Duration, learning rate, and evaluation of the training."""

    epochs: int = Field(default=1, ge=1, le=3)
    """Passes over the pairs, at most three: embedding models overfit quickly."""
    rate: float = Field(default=2e-5, gt=0.0, le=1e-3)
    """Highest learning rate; 1e-5 to 2e-5 preserves what the model has learned. LoRA needs ten times as much."""
    batch: int = Field(default=64, ge=2)
    """Pairs per step, each a negative for the others; use as many as fit into memory."""
    warm_up: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises; after that it falls to zero."""
    evaluations: int = Field(default=4, ge=1)
    """Evaluations on the held-out documents per epoch; each saves a checkpoint."""
    patience: int = Field(default=3, ge=1)
    """Training stops after this number of evaluations without a better nDCG@10."""
    held_out_share: float = Field(default=0.1, gt=0.0, lt=0.9)
    """Share of the documents whose pairs are held out for these evaluations."""
    held_out_texts: int = Field(default=1_000, ge=50)
    """Number of texts that the evaluations search."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest text in training, in tokens; the encoder's limit if empty."""
    lora: LoraSpec | None = None
    """Train only low-rank adapters."""
    processes: int | None = Field(default=None, ge=1)
    """Processes on this machine, one per device; one for each GPU if empty."""
    seed: int = 0
    """Seed of everything random."""


class BenchmarkSpec(SpecModel):
    """A judged corpus of another domain."""

    corpus: str
    """A table with doc_id, title and text."""
    queries: str
    """A file with query_id and text."""
    judgements: str
    """A file with query_id, doc_id and relevance."""


class FineTuneSpec(SpecModel):
    """A fine-tuning, from the pairs to the final comparison."""

    name: Name
    """Name of the result; part of its lineage, not of its identity."""
    pairs: tuple[PairsSpec, ...] = Field(min_length=1)
    """Sources of the training pairs."""
    evaluation: Name
    """Evaluation set of the collection. Its queries, their documents, and near-duplicates are not trained on."""
    outside: BenchmarkSpec | None = None
    """Corpus of another domain, to measure what the model loses there."""
    negatives: NegativesSpec = NegativesSpec()
    """Hard negatives."""
    loss: LossSpec = LossSpec()
    """The loss function."""
    training: TrainingSpec = TrainingSpec()
    """Settings of the training."""
    evaluated_chunks: int = Field(default=20_000, ge=100)
    """Number of chunks that both encoders are compared on: those of relevant documents, and random others."""
    candidate: bool = False
    """Embed the collection with the result afterwards, as a candidate for the recipe's gate."""

    @model_validator(mode="after")
    def _possible(self) -> FineTuneSpec:
        if self.loss.kind in ("triplet", "margin_mse") and self.negatives.count < 1:
            raise ValueError(f"loss.kind={self.loss.kind} with negatives.count={self.negatives.count}: needs 1 or more")
        if self.loss.kind == "margin_mse" and self.negatives.reranker is None:
            raise ValueError("loss.kind=margin_mse needs negatives.reranker, the cross-encoder that is its teacher")
        return self


class FineTuneConfig(PipelineConfig):
    """A pipeline whose encoder is the base model of a fine-tuning."""

    finetune: FineTuneSpec
    """The fine-tuning."""


def load_finetune(path: str | Path, overrides: Sequence[str] = ()) -> FineTuneConfig:
    """Read the configuration of a fine-tuning from a YAML file; see `load_config` for the overrides."""
    return read_config(path, FineTuneConfig, overrides)
