from __future__ import annotations

from dataclasses import fields

from isospace.search.hits import Hit
from isospace.service.schemas import FoundChunk


def test_the_service_answers_with_the_fields_of_a_hit_and_highlights() -> None:
    """Two classes on purpose: one is the library's result, the other the schema that clients hold the service to."""
    assert list(FoundChunk.model_fields) == [*(field.name for field in fields(Hit)), "highlights"]
