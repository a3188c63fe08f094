from __future__ import annotations

from isospace.operations.audit.measurements import tolerances_of
from isospace.transform.space import QueryEncoder, SpaceRecord


def test_logged_queries_have_the_tolerance_of_their_own_encoder() -> None:
    queries = QueryEncoder(encoder_id="q", normalizes=True, min_cosine=0.999)
    pair = SpaceRecord.model_construct(min_cosine=0.9999, query_encoder=queries)
    single = SpaceRecord.model_construct(min_cosine=0.9999, query_encoder=None)
    assert tolerances_of(pair, None) == (0.9999, 0.999)
    assert tolerances_of(single, None) == (0.9999, 0.9999)
    assert tolerances_of(pair, 0.5) == (0.5, 0.5)
