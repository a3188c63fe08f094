"""Configuration of the encoder: model, prompts, windows, precision."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from isospace.encoding.pooling import Pooling
from isospace.encoding.precision import Precision
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import Protocol, ServedModel
from isospace.errors import ConfigError
from isospace.storage.spec import SpecModel


class PromptsSpec(SpecModel):
    """Prompts, which are put before a text, by role."""

    document: str = ""
    """Prompt before every chunk."""
    query: str = ""
    """Prompt before every query."""


class WindowsSpec(SpecModel):
    """Overlapping windows over the tokens of a text that is longer than the encoder's limit."""

    size: int | None = Field(default=None, ge=8)
    """Tokens per window, including prompt and special tokens; the encoder's limit if empty."""
    stride: int = Field(default=128, ge=1)
    """Tokens from the start of one window to the start of the next."""
    pooling: Literal["max", "mean"] = "mean"
    """How the vectors of a text's windows are combined: `max` is the maximum of each dimension, `mean` the average."""


class EncoderSpec(SpecModel):
    """A model on disk that turns text into raw vectors."""

    kind: Literal["transformer"] = "transformer"
    """A model that isospace runs itself. Static models are recognized by their files."""
    model: str
    """A local folder, `package:NAME` for a model in an installed package, `encoder:ID` for an encoder in the store,
    such as a fine-tuned one, or a model name on the Hugging Face Hub together with `revision`."""
    revision: str | None = None
    """For a model on the Hub: the full commit hash, 40 hexadecimal digits."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest input, including prompt and special tokens; the model's own limit if empty."""
    prompts: PromptsSpec | None = None
    """Prompts by role; the model's own prompts if empty."""
    preset: str = "auto"
    """Entry of `configs/models.yaml` to check the model against; `auto` finds it by name, `none` skips the check."""
    pooling: Pooling | None = None
    """How token vectors are combined into one; the model's own pooling if empty."""
    precision: Precision = "float32"
    """Number format that the network computes in. Any other than float32 changes vectors beyond its tolerance, so it is
    another encoder."""
    calibration: str | None = None
    """For int8: a text file with one text per line, on which the value ranges are calibrated once."""
    windows: WindowsSpec | None = None
    """Windows for texts longer than `max_tokens`, with `chunking.kind: none`; without it they are rejected or cut."""
    trust_remote_code: bool = False
    """Whether code that comes with a model from the Hub may run."""

    @model_validator(mode="after")
    def _calibrated(self) -> EncoderSpec:
        if (self.precision == "int8") != (self.calibration is not None):
            raise ValueError("precision=int8 and calibration belong together: set both or neither")
        return self


_TOKENIZER = re.compile(r"budget|tiktoken:[a-z0-9_]+|.+\.json")


class RoleParametersSpec(SpecModel):
    """Parameters of a request, by role, under the names of the provider's protocol."""

    document: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Sent with texts of documents, such as `{input_type: search_document}`."""
    query: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Sent with queries, such as `{input_type: search_query}`."""


class ServedEncoderSpec(SpecModel):
    """A model behind an API that turns text into raw vectors."""

    kind: Literal["served"]
    """A model behind an API; `runtime.endpoint` says where it is."""
    protocol: Protocol
    """What the server understands. `openai`: OpenAI, Azure, vLLM, Ollama, Infinity, isospace, and others that imitate
    it; `tei`: Text Embeddings Inference."""
    model: str = Field(min_length=1)
    """Name of the model, as the server knows it."""
    revision: str | None = Field(default=None, min_length=1, max_length=80)
    """A word of yours, such as a month, that makes another encoder of the same name. Change it when the provider has
    changed the model: all texts are then embedded again."""
    dimensions: int | None = Field(default=None, ge=1)
    """Dimensions to ask for; the model's own number if empty."""
    max_tokens: int = Field(ge=8)
    """Longest text that the model takes, in tokens, as its provider states it."""
    tokenizer: str = "budget"
    """How tokens are counted: the path of a `tokenizer.json`, `tiktoken:NAME` for OpenAI's models, or `budget`, which
    counts a token for every two letters and for every other byte: about twice as many as there are in prose."""
    prompts: PromptsSpec | None = None
    """Prompts by role, which isospace puts before the texts that it sends; those of the preset if empty."""
    preset: str = "auto"
    """Entry of `configs/models.yaml` whose prompts apply; `auto` finds it by name, `none` skips it, such as for a
    server that adds the prompts itself."""
    parameters: RoleParametersSpec | None = None
    """Parameters of the request by role. Needed for protocols that know roles (cohere, voyage, google)."""

    @field_validator("tokenizer")
    @classmethod
    def _known_tokenizer(cls, value: str) -> str:
        if not _TOKENIZER.fullmatch(value):
            raise ValueError(f"tokenizer {value!r}: expected budget, tiktoken:NAME, or the path of a tokenizer.json")
        return value

    @model_validator(mode="after")
    def _possible(self) -> ServedEncoderSpec:
        prompts, parameters = self.prompts or PromptsSpec(), self.by_role
        try:
            ServedModel(
                self.protocol,
                self.model,
                self.dimensions,
                {"document": parameters.document, "query": parameters.query},
                {"document": prompts.document, "query": prompts.query},
            )
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self

    @property
    def by_role(self) -> RoleParametersSpec:
        """The parameters by role; none if the recipe has none."""
        return self.parameters or RoleParametersSpec()

    @property
    def precision(self) -> Precision:
        """The number format of the vectors that arrive."""
        return "float32"

    @property
    def trust_remote_code(self) -> bool:
        """Whether code of the model may run here: there is none."""
        return False


# In the location of an error. No key and no other kind has these names.
DISK_TAG, SERVED_TAG = "encoder-on-disk", "encoder-behind-an-api"


def _tag_of(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return SERVED_TAG if kind == "served" else DISK_TAG


AnyEncoderSpec = Annotated[
    Annotated[EncoderSpec, Tag(DISK_TAG)] | Annotated[ServedEncoderSpec, Tag(SERVED_TAG)], Discriminator(_tag_of)
]


class BatchSpec(SpecModel):
    """OpenAI's Batch API: texts are sent as files, and the vectors arrive within a day, at a lower price."""

    enabled: bool = True
    """Whether documents are sent as batches; queries and checks never are."""
    completion_window: str = "24h"
    """Within which time the provider has to answer; OpenAI takes `24h` alone."""
    max_requests: int = Field(default=50_000, ge=1, le=50_000)
    """Most requests in a batch."""
    max_texts: int = Field(default=50_000, ge=2, le=50_000)
    """Most texts in all requests of a batch, including the control text that goes with each request."""
    max_megabytes: float = Field(default=200.0, gt=0.0, le=200.0)
    """Largest file of a batch, in MB."""
    request_texts: int = Field(default=128, ge=1, le=2048)
    """Most texts in a request. If the provider refuses one of them, all are sent again, each on its own."""
    request_url: str = "/v1/embeddings"
    """What each line of a batch names as its address; `/embeddings` on some servers."""
    poll_seconds: float = Field(default=60.0, gt=0.0)
    """Seconds between two questions about the state of the batches."""
    max_wait_hours: float = Field(default=72.0, gt=0.0)
    """Hours that a run waits for its batches before it fails; the next run continues to wait for the same ones."""
    max_submissions: int = Field(default=3, ge=1)
    """How often a text is submitted whose batch expires, or whose request fails."""
    price_per_million_tokens: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    """Price of a million tokens in batches; if empty, that of `runtime.endpoint`."""


class EndpointSpec(SpecModel):
    """Where a served encoder is, and how it is called; never part of an identity."""

    url: str | None = None
    """Base URL, such as `http://gpu-1:7997/v1`; if empty, `$ISOSPACE_ENDPOINT`, or else the provider's own."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; if empty, that of the provider's own SDK, such as
    `OPENAI_API_KEY`, if it is set."""
    key_file: str | None = None
    """File that holds the key; it is read again when it changes."""
    key_header: str | None = None
    """Header that the key is sent in, such as `api-key` for Azure; if empty, that of the protocol."""
    query: dict[str, str] = Field(default_factory=dict)
    """Parameters of the URL, such as `{api-version: "2024-10-21"}` for Azure."""
    timeout_seconds: float = Field(default=60.0, gt=0.0)
    """Seconds that one request may take."""
    deadline_seconds: float = Field(default=600.0, gt=0.0)
    """Seconds to keep trying a batch of texts, before the shard fails."""
    max_concurrency: int = Field(default=64, ge=1)
    """Most requests at the same time; up to there, the client finds the best number itself."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Most requests in a minute, if the provider's own limit should not be used up."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Most tokens in a minute, likewise."""
    max_batch_texts: int | None = Field(default=None, ge=1)
    """Most texts in a request; if empty, what the protocol allows."""
    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens in a request; if empty, what the protocol allows."""
    price_per_million_tokens: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    """Price of a million tokens; plans, budgets, and reports then show money."""
    retry_refused: bool = False
    """Whether to send the texts again that the provider refused in earlier runs, such as after it had a fault."""
    noise_limit: float = Field(default=0.999, gt=0.0, le=1.0)
    """Smallest cosine allowed between two vectors of the same text; a noisier provider is refused."""
    batch: BatchSpec | None = None
    """For OpenAI's protocol: send documents through the Batch API; if empty, each request is answered at once."""

    @property
    def batches(self) -> BatchSpec | None:
        """The settings of batches; None if documents are not sent that way."""
        return self.batch if self.batch is not None and self.batch.enabled else None

    @property
    def token_price(self) -> tuple[float | None, str]:
        """The price of a million tokens of documents, and the key that sets it."""
        if self.batches is not None and self.batches.price_per_million_tokens is not None:
            return self.batches.price_per_million_tokens, "runtime.endpoint.batch.price_per_million_tokens"
        return self.price_per_million_tokens, "runtime.endpoint.price_per_million_tokens"

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, values: Any) -> Any:
        """Refuse what may be a key before the configuration is recorded anywhere, such as in Prefect's parameters."""
        if isinstance(values, dict):
            texts = {name: value for name, value in values.items() if isinstance(value, str)}
            query = values.get("query")
            try:
                Endpoint(
                    texts.get("url") or "http://localhost",
                    texts.get("key_env"),
                    texts.get("key_file"),
                    texts.get("key_header"),
                    tuple(query.items()) if isinstance(query, dict) else (),
                )
            except ConfigError as error:
                raise ValueError(str(error).rstrip(".")) from None
        return values

    def __hash__(self) -> int:
        return hash(self.model_dump_json())
