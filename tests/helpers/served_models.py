"""One model of every protocol, with all that tells the roles apart."""

from __future__ import annotations

from typing import Any

from isospace.encoding.served.model import ServedModel
from isospace.transform.affine import ROLES

ROLE_SETTINGS: dict[str, dict[str, Any]] = {
    "openai": {"prompts": {"query": "query: ", "document": "passage: "}},
    "tei": {"parameters": {"query": {"prompt_name": "query"}, "document": {"prompt_name": None}}},
    "cohere": {"parameters": {role: {"input_type": f"search_{role}"} for role in ROLES}},
    "voyage": {"parameters": {role: {"input_type": role} for role in ROLES}},
    "google": {"parameters": {role: {"taskType": f"RETRIEVAL_{role.upper()}"} for role in ROLES}},
}
PROTOCOLS = tuple(ROLE_SETTINGS)


def served_model(protocol: str = "openai", **changes: Any) -> ServedModel:
    return ServedModel(protocol, **{"model": "a-model", **ROLE_SETTINGS[protocol], **changes})  # type: ignore[arg-type]
