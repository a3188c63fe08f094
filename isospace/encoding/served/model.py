"""What a served encoder is: the protocol, the model, and everything on the wire that changes a vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from isospace.errors import ConfigError
from isospace.transform.affine import ROLES, Role

Protocol: TypeAlias = Literal["openai", "tei", "cohere", "voyage", "google"]
Value: TypeAlias = str | int | float | bool | None
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# Texts and tokens of one request, by the providers' documentation. Of TEI, /info says how many texts.
_MOST_TEXTS: dict[Protocol, int] = {"openai": 2048, "tei": 32, "cohere": 96, "voyage": 1000, "google": 100}
_MOST_TOKENS: dict[Protocol, int | None] = {
    "openai": 300_000,
    "tei": None,
    "cohere": None,
    "voyage": 120_000,
    "google": None,
}
# The parameter that tells a protocol the role of the texts.
ROLE_PARAMETER: dict[Protocol, str | None] = {
    "openai": None,
    "tei": "prompt_name",
    "cohere": "input_type",
    "voyage": "input_type",
    "google": "taskType",
}
# What the client sends itself; a parameter of the same name would contradict it.
_OWN = {
    "openai": ("input", "model", "dimensions", "encoding_format"),
    "tei": ("inputs", "model", "dimensions", "truncate"),
    "cohere": ("texts", "inputs", "images", "model", "output_dimension", "embedding_types", "truncate"),
    "voyage": ("input", "model", "output_dimension", "output_dtype", "encoding_format", "truncation"),
    "google": ("content", "model", "outputDimensionality", "autoTruncate", "requests", "instances", "parameters"),
}


@dataclass(frozen=True)
class ServedModel:
    """A model behind an API.

    Parameters
    ----------
    protocol
        `openai` also speaks to Azure, vLLM, Ollama, Infinity, TEI's OpenAI route, and isospace's own service.
    model
        The name that is sent to the provider.
    dimensions
        Number of dimensions to request; None sends nothing, and the model's own number comes back.
    parameters
        By role, what is sent beside the texts: `input_type`, `taskType`, `prompt_name`. None as a value says that the
        parameter is left out on purpose.
    prompts
        By role, the text that is put before each text.
    truncate
        Whether the provider may cut long texts. If not, it is told so where the protocol can say it.
    max_batch_texts, max_batch_tokens
        Limits of one request; None takes the protocol's. They change no vector and are not part of `identity`.

    Raises
    ------
    ConfigError
        If a value is invalid, or the protocol distinguishes roles and a role is not named.
    """

    protocol: Protocol
    model: str
    dimensions: int | None = None
    parameters: Mapping[Role, Mapping[str, Value]] = field(default_factory=dict)
    prompts: Mapping[Role, str] = field(default_factory=dict)
    truncate: bool = False
    max_batch_texts: int | None = None
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _frozen({role: _frozen(v) for role, v in self.parameters.items()}))
        object.__setattr__(self, "prompts", _frozen(self.prompts))
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol: {self.protocol!r}; expected one of {', '.join(PROTOCOLS)}.")
        if not self.model.strip():
            raise ConfigError("model: empty; expected the name that the provider gives the model.")
        for name in ("dimensions", "max_batch_texts", "max_batch_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: {value}; expected at least 1.")
        _require_known(self)
        _require_roles(self)

    def __hash__(self) -> int:
        return hash((self.protocol, self.model, self.dimensions, self.truncate))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, and workers receive the model that way.
        parameters = {role: dict(values) for role, values in self.parameters.items()}
        arguments = (parameters, dict(self.prompts), self.truncate, self.max_batch_texts, self.max_batch_tokens)
        return type(self), (self.protocol, self.model, self.dimensions, *arguments)

    def identity(self) -> dict[str, Any]:
        """Return what tells this encoder apart from others, ready for JSON; the URL, key, and limits are not in it."""
        return {
            "protocol": self.protocol,
            "model": self.model,
            "dimensions": self.dimensions,
            "parameters": {role: dict(sorted(self.parameters.get(role, {}).items())) for role in ROLES},
            "prompts": {role: self.prompts.get(role, "") for role in ROLES},
            "truncate": self.truncate,
        }

    def sent(self, role: Role) -> dict[str, Value]:
        """Return the parameters that are sent for a role."""
        return {name: value for name, value in self.parameters.get(role, {}).items() if value is not None}

    def prompted(self, text: str, role: Role) -> str:
        """Return a text as it is sent: after its role's prompt."""
        return self.prompts.get(role, "") + text

    @property
    def most_texts(self) -> int:
        """Limit of texts per request."""
        return self.max_batch_texts or _MOST_TEXTS[self.protocol]

    @property
    def most_tokens(self) -> int | None:
        """Limit of tokens per request; None if the protocol has none."""
        return self.max_batch_tokens or _MOST_TOKENS[self.protocol]


def _frozen(values: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(dict(values))


def _require_known(model: ServedModel) -> None:
    for where, by_role in (("parameters", model.parameters), ("prompts", model.prompts)):
        if unknown := [role for role in by_role if role not in ROLES]:
            raise ConfigError(f"{where}: unknown role {unknown[0]!r}; expected {' or '.join(ROLES)}.")
    for role, values in model.parameters.items():
        for name in values:
            if name in _OWN[model.protocol]:
                raise ConfigError(
                    f"parameters.{role}.{name}: the client sends this itself; set the encoder's own fields "
                    "(model, dimensions, truncate) instead."
                )


def _require_roles(model: ServedModel) -> None:
    """Refuse a protocol that distinguishes roles where a role is not named: all texts would be embedded alike."""
    name = ROLE_PARAMETER[model.protocol]
    if name is None:
        return
    named = {role: name in model.parameters.get(role, {}) for role in ROLES}
    if model.protocol == "tei" and not any(named.values()):
        return
    for role in ROLES:
        by_prompt = model.protocol in ("voyage", "google") and bool(model.prompts.get(role))
        value = model.parameters.get(role, {}).get(name)
        if not named[role] and not by_prompt:
            raise ConfigError(
                f"parameters.{role}.{name}: missing, and the protocol {model.protocol} embeds queries and documents "
                f"differently; set {name} for both roles{_example(model.protocol, role)}."
            )
        if model.protocol == "cohere" and not value:
            raise ConfigError(f"parameters.{role}.{name}: {value!r}; expected an input type such as search_{role}.")


def _example(protocol: Protocol, role: Role) -> str:
    examples = {
        "tei": "; null where a role has no prompt",
        "cohere": f" (search_{role})",
        "voyage": f" ({role}), or null to leave it out on purpose",
        "google": f" (RETRIEVAL_{role.upper()}), or null to leave it out on purpose",
    }
    return examples[protocol]
