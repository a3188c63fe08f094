"""What a fine-tuning is asked to be."""

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
    """A title asks for its body, a heading for its section, or a sentence for the rest of the chunk it is taken out of."""
    most: int = Field(default=20_000, ge=1)
    """Most pairs, one a document."""


class JudgedPairs(SpecModel):
    """Pairs of judged queries and the documents that answer them."""

    kind: Literal["judged"]
    queries: str
    """File or folder of queries, as for `isospace sets add`."""
    judgements: str | None = None
    """File with query_id, doc_id, relevance."""
    split: str = "train"
    """Which judgements of a BEIR folder."""


class FilePairs(SpecModel):
    """Pairs out of a file."""

    kind: Literal["file"]
    path: str
    """JSON lines or a table with the columns anchor and positive, and perhaps negative, doc_id and origin."""


class GeneratedPairs(SpecModel):
    """Questions that a language model asks of chunks."""

    kind: Literal["generated"]
    endpoint: str
    """Base url of an OpenAI-compatible API, or the folder of a local seq2seq model as `local:FOLDER`."""
    model: str
    """Name of the model there."""
    template: str = "Write {count} questions that the following text answers. One a line, without numbers.\n\n{text}"
    """What is asked; {count} and {text} are filled in."""
    count: int = Field(default=5, ge=1, le=20)
    """Questions a chunk."""
    most: int = Field(default=1_000, ge=1)
    """Most chunks that are asked about, one a document."""
    key_variable: str | None = None
    """Environment variable that holds the API key; none is sent if empty."""
    found_within: int = Field(default=20, ge=1)
    """A question is kept if the base model finds its document among so many: others are about something else."""


PairsSpec = Annotated[CorpusPairs | JudgedPairs | FilePairs | GeneratedPairs, Field(discriminator="kind")]


class NegativesSpec(SpecModel):
    """Hard negatives: texts that look like answers and are none."""

    sources: tuple[Literal["lexical", "dense"], ...] = ("lexical", "dense")
    """BM25, and the base model in the space of the collection. Other pairs of a batch are negatives in any case."""
    count: int = Field(default=1, ge=0, le=8)
    """How many an anchor; pairs with fewer are left out where the loss needs them."""
    ranks: tuple[int, int] = (5, 50)
    """Candidates are taken from these ranks: what stands before them is too often an answer that nobody judged."""
    margin: float = Field(default=0.05, ge=0.0, le=1.0)
    """A candidate's cosine is below that of the positive by this share of it, or more (arXiv:2407.15831)."""
    duplicate: float = Field(default=0.95, gt=0.0, le=1.0)
    """A candidate whose cosine with the positive is this or more is its near-duplicate, and left out."""
    reranker: str | None = None
    """Folder of a cross-encoder that filters candidates too, and teaches with `loss.kind: margin_mse`."""

    @model_validator(mode="after")
    def _ordered(self) -> NegativesSpec:
        first, last = self.ranks
        if not 1 <= first <= last <= 1_000:
            raise ValueError(f"negatives.ranks = [{first}, {last}]: expected 1 <= first <= last <= 1000")
        if self.count and not self.sources:
            raise ValueError("negatives.sources is empty: name lexical or dense, or set negatives.count to 0")
        return self


class LossSpec(SpecModel):
    """What training makes small."""

    kind: Literal["ranking", "triplet", "margin_mse"] = "ranking"
    """MultipleNegativesRanking on (anchor, positive[, negatives]), Triplet, or MarginMSE taught by a cross-encoder."""
    scale: float = Field(default=20.0, gt=0.0)
    """For ranking: what cosines are multiplied by; the inverse of the temperature."""
    cached: int | None = Field(default=None, ge=1)
    """For ranking: texts computed at once, for batches larger than memory (GradCache, arXiv:2101.06983)."""
    triplet_margin: float = Field(default=0.2, gt=0.0)
    """For triplet: by how much the cosine distance to the negative is to exceed that to the positive."""
    matryoshka: tuple[int, ...] = ()
    """Dimensions that the loss is computed at, too (arXiv:2205.13147); the whole vector comes first."""

    @model_validator(mode="after")
    def _fitting(self) -> LossSpec:
        if self.cached is not None and self.kind != "ranking":
            raise ValueError(f"loss.cached is for loss.kind=ranking, not {self.kind}")
        if self.matryoshka and self.kind == "margin_mse":
            raise ValueError("loss.matryoshka with margin_mse: a teacher's margins hold for whole vectors alone")
        return self


class LoraSpec(SpecModel):
    """Low-rank adapters instead of all weights (arXiv:2106.09685); they are merged into the weights at the end."""

    rank: int = Field(default=16, ge=1)
    """Of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """What they are scaled by, over the rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """In them."""


class TrainingSpec(SpecModel):
    """How long and how fast."""

    epochs: int = Field(default=1, ge=1, le=3)
    """Passes over the pairs. Embeddings overfit soon: more than three are refused."""
    rate: float = Field(default=2e-5, gt=0.0, le=1e-3)
    """Highest learning rate; 1e-5 to 2e-5 keeps what the model knows. LoRA takes ten times that."""
    batch: int = Field(default=64, ge=2)
    """Pairs a step, each a negative for the others: as many as memory takes."""
    warm_up: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the rate rises; it then falls to zero."""
    evaluations: int = Field(default=4, ge=1)
    """Evaluations on the held-out documents in an epoch; a checkpoint is kept at each."""
    patience: int = Field(default=3, ge=1)
    """Training stops after so many evaluations without a better nDCG@10."""
    held_out_share: float = Field(default=0.1, gt=0.0, lt=0.9)
    """Share of the documents whose pairs are kept for these evaluations."""
    held_out_texts: int = Field(default=1_000, ge=50)
    """Texts that are searched in them."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest text while training; the encoder's limit if empty."""
    lora: LoraSpec | None = None
    """Train adapters alone."""
    processes: int | None = Field(default=None, ge=1)
    """Processes on this machine, one a device; one for each GPU if empty."""
    seed: int = 0
    """Of everything that is drawn."""


class BenchSpec(SpecModel):
    """A judged corpus of another domain."""

    corpus: str
    """A table with doc_id, title and text."""
    queries: str
    """A file with query_id and text."""
    judgements: str
    """A file with query_id, doc_id and relevance."""


class FineTuneSpec(SpecModel):
    """A fine-tuning, from pairs to the verdict."""

    name: Name
    """Of the result; part of its lineage, not of its identity."""
    pairs: tuple[PairsSpec, ...] = Field(min_length=1)
    """Where pairs come from."""
    evaluation: Name
    """Evaluation set of the collection; its queries, their documents and near-duplicates of these are not trained on."""
    outside: BenchSpec | None = None
    """What the model may lose elsewhere is measured on this."""
    negatives: NegativesSpec = NegativesSpec()
    """Hard negatives."""
    loss: LossSpec = LossSpec()
    """The loss."""
    training: TrainingSpec = TrainingSpec()
    """The training."""
    evaluated_chunks: int = Field(default=20_000, ge=100)
    """Chunks that both encoders are compared on: those of relevant documents, and others drawn."""
    candidate: bool = False
    """Embed the collection with the result afterwards, and hand it to the recipe's gate."""

    @model_validator(mode="after")
    def _possible(self) -> FineTuneSpec:
        if self.loss.kind in ("triplet", "margin_mse") and self.negatives.count < 1:
            raise ValueError(f"loss.kind={self.loss.kind} needs negatives.count of 1 or more")
        if self.loss.kind == "margin_mse" and self.negatives.reranker is None:
            raise ValueError("loss.kind=margin_mse needs negatives.reranker: the cross-encoder is its teacher")
        return self


class FineTuneConfig(PipelineConfig):
    """A pipeline whose encoder is the base of a fine-tuning."""

    finetune: FineTuneSpec
    """The fine-tuning."""


def load_finetune(path: str | Path, overrides: Sequence[str] = ()) -> FineTuneConfig:
    """Read a fine-tuning from a YAML file, as `isospace.pipeline.config_files.load_config` reads a pipeline."""
    return read_config(path, FineTuneConfig, overrides)
