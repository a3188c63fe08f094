"""Waiting for batches: whatever becomes of them, each text gets its vector once, and is paid once."""

from __future__ import annotations

from typing import Any

import pytest

from isospace.collection.billing import read_billed
from isospace.errors import IntegrityError, ProviderAnswerError, ProviderRefusedError, ProviderUnavailableError
from isospace.pipeline.encode.paid_answers import PaidAnswers
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import shard_texts
from isospace.storage.hashing import seal, unseal
from tests.helpers.batch_provider import Fate
from tests.helpers.fake_provider_answers import texts_in, vector_of
from tests.helpers.runs import text_hash, write_chunk_part
from tests.isospace.pipeline.encode.batches.conftest import TEXTS, Bench

BUSY = {"status_code": 503, "request_id": "r", "body": {"error": {"message": "overloaded", "type": "server_error"}}}
LIMITED = {"status_code": 429, "request_id": "r", "body": {"error": {"message": "slow down", "code": "requests"}}}
QUOTA = {"status_code": 429, "request_id": "r", "body": {"error": {"message": "pay", "code": "insufficient_quota"}}}


def once(bench: Bench) -> None:
    """Check that every text was paid once, and that nothing is left at the provider or in the store."""
    bench.expect(TEXTS)
    assert bench.paid() == dict.fromkeys(TEXTS, 1)
    assert bench.records() == []
    assert bench.provider.files == {}
    assert list(bench.folder.joinpath("scratch").iterdir()) == []


def test_texts_are_packed_within_the_limits_and_every_request_has_the_control_text(bench: Bench) -> None:
    done = bench.encode()
    once(bench)
    assert (sum(shard.chunks for shard in done), sum(shard.tokens for shard in done)) == (20, 200)
    assert done[0].billed_tokens == bench.provider.billed
    assert read_billed(bench.made.store, "c").tokens == bench.provider.billed
    control = set(bench.provider.paid) - set(TEXTS)
    assert len(control) == 1
    requests = 0
    for stored in bench.provider.batches.values():
        inputs = [texts_in(line["body"]) for line in stored.lines]
        requests += len(inputs)
        assert sum(map(len, inputs)) <= 9
        assert all(2 <= len(one) <= 4 and one[-1] in control for one in inputs)
    assert requests == bench.provider.paid[control.pop()]
    # A shard of six texts makes two requests, and one file takes two of them.
    assert len(bench.provider.batches) == 4


@pytest.mark.parametrize(
    ("limit", "batches"), [({"max_requests": 1}, 7), ({"max_megabytes": 0.0008}, 3), ({"max_texts": 7}, 6)]
)
def test_requests_bytes_and_texts_of_a_file_are_limited(bench: Bench, limit: dict[str, Any], batches: int) -> None:
    bench.changed(**{"max_texts": 1000, **limit}).encode()
    once(bench)
    assert len(bench.provider.batches) == batches


def test_a_killed_run_continues_with_the_batches_that_it_submitted(bench: Bench) -> None:
    bench.kill_while_waiting()
    submitted = len(bench.provider.batches)
    assert len(bench.records()) == submitted == 4
    assert bench.vectors() == {}
    bench.encode()
    once(bench)
    assert len(bench.provider.batches) == submitted
    assert bench.said("continues to wait for 4 batches of earlier runs, with 20 texts")


@pytest.mark.parametrize("call", ["POST files", "POST batches"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("answered", [True, False])
def test_a_run_that_is_killed_while_it_submits_pays_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, number: int, answered: bool
) -> None:
    """Between the call and its record: the provider has the file or the batch, and the store does not know its ID."""
    from isospace.encoding.served.batch_client import BatchClient
    from tests.isospace.pipeline.encode.batches.conftest import Killed

    name = "upload" if call == "POST files" else "create"
    original, calls = getattr(BatchClient, name), 0

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not answered:
            raise Killed
        result = original(*arguments, **keywords)
        if calls == number:
            raise Killed
        return result

    monkeypatch.setattr(BatchClient, name, interrupted)
    with pytest.raises(Killed):
        bench.encode()
    monkeypatch.setattr(BatchClient, name, original)
    bench.encode()
    once(bench)
    assert len(bench.provider.batches) == 4
    assert bench.said("which an interrupted run had submitted") is (call == "POST batches" and answered)


def test_expired_requests_are_submitted_again_and_others_of_the_batch_are_kept(bench: Bench) -> None:
    bench.provider.fates = [Fate("expired", expired=lambda n: n == 1), Fate("expired", expired=lambda n: True)]
    bench.encode()
    once(bench)
    assert len(bench.provider.batches) == 6
    again = [text for stored in list(bench.provider.batches.values())[4:] for line in stored.lines
             for text in texts_in(line["body"])]  # fmt: skip
    assert len(set(again) & set(TEXTS)) == 3 + 6
    assert bench.said("completion window expired")


def test_texts_whose_batches_always_expire_fail_the_run_and_the_rest_is_kept(bench: Bench) -> None:
    bench.provider.fates = [Fate(), *[Fate("expired", expired=lambda n: True)] * 5]
    narrow = bench.changed(max_texts=30, max_submissions=2)
    with pytest.raises(ProviderUnavailableError, match=r"window expired.*2 times for the same texts"):
        narrow.encode(TEXTS + [f"text number {n}" for n in range(20, 40)])
    assert len(narrow.vectors()) > 0
    assert narrow.vectors().keys() == {text_hash(text) for text in narrow.paid()}
    bench.provider.fates = []
    narrow.encode(TEXTS + [f"text number {n}" for n in range(20, 40)])
    assert set(narrow.paid().values()) == {1}
    assert len(narrow.vectors()) == 40


@pytest.mark.parametrize("response", [BUSY, LIMITED])
def test_requests_that_fail_are_submitted_again(bench: Bench, response: dict[str, Any]) -> None:
    bench.provider.fates = [Fate(failing=lambda n: response if n == 0 else None), Fate(missing=lambda n: n == 0)]
    bench.encode()
    once(bench)
    assert len(bench.provider.batches) == 6 - 1


def test_a_used_up_quota_ends_the_run_and_what_was_answered_is_kept(bench: Bench) -> None:
    bench.provider.fates = [Fate(failing=lambda n: QUOTA if n == 1 else None)]
    with pytest.raises(ProviderRefusedError, match="the quota or the credit is used up"):
        bench.encode()
    assert len(bench.paid()) == 3 == len(bench.vectors())
    bench.encode()
    once(bench)


def test_a_refused_text_is_found_with_its_reason_and_its_neighbours_get_vectors(bench: Bench) -> None:
    bench.provider.rejects = lambda text: "flagged as unsafe" if text == TEXTS[7] else None
    done = bench.encode()
    assert dict(done[0].refused) == {text_hash(TEXTS[7]): "flagged as unsafe"}
    others = [text for text in TEXTS if text != TEXTS[7]]
    bench.expect(others)
    assert bench.paid() == dict.fromkeys(others, 1)
    # A run that is killed before the document is set aside does not send it again.
    submitted = len(bench.provider.batches)
    assert dict(bench.encode()[0].refused) == {text_hash(TEXTS[7]): "flagged as unsafe"}
    assert len(bench.provider.batches) == submitted


def test_requests_that_are_at_fault_themselves_quarantine_no_text(bench: Bench) -> None:
    bench.on_sleep = lambda: setattr(bench.provider, "parameters_wrong", "dimensions is not supported")
    with pytest.raises(ProviderRefusedError, match="rejects every text, also a harmless one"):
        bench.encode()
    assert bench.vectors() == {}
    bench.on_sleep, bench.provider.parameters_wrong = lambda: None, None
    bench.encode()
    once(bench)


def test_vectors_that_cannot_be_used_are_asked_for_again_and_then_refused(bench: Bench) -> None:
    bench.provider.spoiled = lambda text: text == TEXTS[3]
    done = bench.changed(max_submissions=2).encode()
    assert dict(done[0].refused) == {text_hash(TEXTS[3]): "the provider's vector has values that are not finite"}
    others = [text for text in TEXTS if text != TEXTS[3]]
    bench.expect(others)
    assert bench.paid() == {**dict.fromkeys(others, 1), TEXTS[3]: 2}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("other vectors", "the provider serves another model now"),
        ("another dimension", "dimensions"),
        ("another model", "answers with the model 'fake-1-new'"),
        ("missing vectors", "3 vectors; expected 4|1 vectors; expected 2"),
        ("doubled index", "twice"),
    ],
)
def test_answers_of_another_model_or_with_missing_vectors_are_never_stored(
    bench: Bench, kind: Any, reason: str
) -> None:
    bench.provider.fates = [Fate(), *[Fate(spoiled=lambda n: kind)] * 30]
    with pytest.raises(ProviderAnswerError, match=reason):
        bench.changed(max_texts=12).encode()
    marker = "[{}, {}]"
    for key, vector in bench.vectors().items():
        (text,) = [text for text in TEXTS if text_hash(text) == key]
        assert vector.tobytes() == vector_of(text, marker).tobytes()
    bench.provider.fates = []
    bench.changed().encode()
    bench.expect(TEXTS)


def test_when_the_model_has_changed_the_other_batches_are_canceled(bench: Bench) -> None:
    bench.provider.fates = [Fate(spoiled=lambda n: "another model")]
    bench.kill_while_waiting()
    # Only the first one is allowed to end.
    bench.provider.batches["batch_1"].answer["status"] = "finalizing"
    bench.provider.held = True
    with pytest.raises(ProviderAnswerError, match="answers with the model 'fake-1-new'"):
        bench.encode()
    assert [one.answer["status"] for one in bench.provider.batches.values()] == ["completed", *["cancelled"] * 3]
    bench.provider.held = False
    bench.encode()
    bench.expect(TEXTS)
    assert bench.records() == []


def test_a_batch_that_somebody_cancels_ends_the_run_and_the_next_one_submits_the_rest(bench: Bench) -> None:
    bench.kill_while_waiting()
    bench.provider.batches["batch_2"].fate = Fate("cancelled", expired=lambda n: n == 0)
    with pytest.raises(ProviderRefusedError, match=r"batch_2 was canceled at the provider, and 3 of its 6 texts"):
        bench.encode()
    bench.encode()
    once(bench)


def test_a_batch_that_fails_as_a_whole_names_the_reason(bench: Bench) -> None:
    bench.provider.fates = [Fate("failed", problems=[{"code": "billing_hard_limit_reached", "message": "no money"}])]
    with pytest.raises(ProviderRefusedError, match=r"batch_1 failed \(billing_hard_limit_reached: no money\)"):
        bench.encode()
    bench.encode()
    once(bench)


def test_texts_wait_while_the_queue_of_the_provider_is_full(bench: Bench) -> None:
    # Each file of six texts has 30 tokens with the prompt, and 18 of the control text in two requests.
    bench.provider.queue_tokens = 150
    bench.encode()
    once(bench)
    assert bench.said("queue is full (token_limit_exceeded")


def test_a_file_that_is_too_large_for_the_queue_is_divided(bench: Bench) -> None:
    bench.provider.queue_tokens = 100
    bench.changed(max_texts=1000).encode()
    once(bench)
    assert max(len(stored.lines) for stored in bench.provider.batches.values()) == 7
    assert bench.provider.calls["POST batches"] < 20


def test_a_run_that_waits_too_long_fails_and_the_next_one_waits_on(bench: Bench) -> None:
    bench.provider.held = True
    impatient = bench.changed(max_wait_hours=2.0)
    with pytest.raises(ProviderUnavailableError, match=r"4 batches have not ended after 2.0 hours \(batch_1, batch_2"):
        impatient.encode()
    assert 2 * 3600 <= impatient.now < 2.1 * 3600
    bench.provider.held = False
    impatient.encode()
    once(bench)


def test_an_outage_while_it_waits_does_not_end_the_run(bench: Bench) -> None:
    bench.kill_while_waiting()
    bench.provider.refusing = [("GET batches/{id}", 503)] * 25
    bench.encode()
    once(bench)
    assert bench.said("The run goes on to wait")


def test_answers_that_cannot_be_fetched_for_a_while_are_fetched_later(bench: Bench) -> None:
    bench.provider.refusing = [("GET files/{id}/content", 503)] * 25
    bench.encode()
    once(bench)
    assert bench.said("The run goes on to wait")


def test_half_a_file_is_fetched_again_and_nothing_is_paid_again(bench: Bench) -> None:
    halves = iter([True, True])
    bench.provider.served = lambda content: content[: len(content) // 2] if next(halves, False) else content
    bench.encode()
    once(bench)
    assert len(bench.provider.batches) == 4


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (lambda content: content[: len(content) // 2], "have 1 requests; expected at least 2"),
        (lambda content: "<html>\n\x00{}\n[1]\n", "have 0 requests; expected at least 2"),
        (lambda content: content + content, "twice; expected each request once"),
        (lambda content: content.replace('-000001"', '-000009"'), "and was not asked; expected each request once"),
    ],
)
def test_files_that_do_not_belong_to_the_batch_end_the_run_and_can_be_fetched_later(
    bench: Bench, served: Any, message: str
) -> None:
    bench.provider.served = served
    with pytest.raises(ProviderAnswerError, match=f"{message}.*delete collections/c/plans/batches/"):
        bench.encode()
    assert len(bench.records()) == 4
    bench.provider.served = lambda content: content
    bench.encode()
    once(bench)
    assert len(bench.provider.batches) == 4


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, None), (200, {"data": [None]}), (200, {"error": {"message": "x"}}), ("200", []), (302, "")],
)
def test_answers_without_sense_are_asked_for_again(bench: Bench, status: Any, body: Any) -> None:
    response = {"status_code": status, "request_id": "r", "body": body}
    bench.provider.fates = [Fate(failing=lambda n: response if n == 1 else None)]
    if status == 302:
        with pytest.raises(ProviderRefusedError, match="redirects"):
            bench.encode()
    bench.encode()
    once(bench)


@pytest.mark.parametrize("call", ["POST files", "POST batches"])
def test_a_server_without_the_batch_api_is_named_and_leaves_no_trace(bench: Bench, call: str) -> None:
    bench.provider.refusing = [(call, 404)]
    with pytest.raises(
        ProviderRefusedError, match=r"HTTP 404.*expected OpenAI's Batch API.*runtime.endpoint.batch out"
    ):
        bench.encode()
    assert bench.records() == []
    assert bench.provider.files == {}


def test_a_batch_of_another_key_is_named_with_its_record(bench: Bench) -> None:
    bench.kill_while_waiting()
    bench.provider.batches.pop("batch_1")
    with pytest.raises(ProviderRefusedError, match=r"Batch batch_1 may belong to another key.*plans/batches/"):
        bench.encode()


def test_a_damaged_record_is_not_taken_for_an_absent_one(bench: Bench) -> None:
    bench.kill_while_waiting()
    path = bench.records()[0]
    bench.made.store.write(path, bench.made.store.read(path)[:-10])
    with pytest.raises(IntegrityError, match="plans/batches"):
        bench.encode()


@pytest.mark.parametrize("change", [{"name": "../../../x"}, {"batch_id": "a/../b"}, {"lines": 3}, {"file_id": "x?y"}])
def test_a_record_whose_names_lead_elsewhere_is_refused(bench: Bench, change: dict[str, Any]) -> None:
    bench.kill_while_waiting()
    store, path = bench.made.store, bench.records()[0]
    store.write(path, seal(unseal(store.read(path), name=path) | change))
    with pytest.raises(IntegrityError, match="not the record of a batch"):
        bench.encode()


def test_only_the_texts_of_the_run_are_waited_for(bench: Bench) -> None:
    """A run for some documents leaves the batches of others alone, which a later run fetches."""
    bench.kill_while_waiting(TEXTS[6:])
    others = bench.records()
    bench.provider.held = True
    new = ["text number 100", "text number 101"]

    def only_new() -> None:
        list(bench.provider.batches.values())[-1].answer["status"] = "finalizing"

    bench.on_sleep = only_new
    bench.encode(new)
    bench.expect(new)
    assert bench.records() == others
    bench.on_sleep, bench.provider.held = lambda: None, False
    bench.encode()
    bench.expect(TEXTS + new)
    assert bench.paid() == dict.fromkeys(TEXTS + new, 1)


def test_a_text_that_left_the_source_meanwhile_is_kept_and_not_submitted_again(bench: Bench) -> None:
    bench.provider.fates = [Fate("expired", expired=lambda n: n == 1)]
    bench.kill_while_waiting()
    expired = texts_in(bench.provider.batches["batch_1"].lines[1]["body"])[:-1]
    left = [text for text in TEXTS if text not in expired]
    bench.encode(left)
    bench.expect(left)
    assert len(bench.provider.batches) == 4


def test_answers_that_were_paid_before_batches_were_turned_on_are_used(bench: Bench) -> None:
    run = bench.made
    shard = plan_shards(run, [write_chunk_part(run, "a", TEXTS)], limit=100).shards[1]
    hashes, texts = shard_texts(run, shard)
    with PaidAnswers(run.store, run.paths.paid(shard.shard_id), run.encoder_id, hashes) as answers:
        answers.keep({row: vector_of(texts[row], "[{}, {}]") for row in range(4)}, range(len(texts)))
    bench.encode()
    bench.expect(TEXTS)
    assert bench.paid() == dict.fromkeys(set(TEXTS) - set(texts[:4]), 1)
    assert list(run.store.walk(run.paths.paid(shard.shard_id))) == []


@pytest.mark.parametrize(("budget", "texts"), [({"tokens": 100}, 12), ({"money": 0.00013}, 12), ({"tokens": 1}, 6)])
def test_a_budget_limits_what_is_submitted(bench: Bench, budget: dict[str, float], texts: int) -> None:
    bench.batch = {"price_per_million_tokens": 1.0}
    bench.runtime = {"budget": budget}
    done = bench.encode()
    assert sum(shard.chunks for shard in done) == len(bench.paid()) == texts
    assert len(done) == texts // 6
    assert read_billed(bench.made.store, "c").money == pytest.approx(bench.provider.billed / 1e6)


def test_what_was_submitted_before_costs_no_budget(bench: Bench) -> None:
    bench.kill_while_waiting()
    bench.runtime = {"budget": {"tokens": 1}}
    bench.encode()
    once(bench)
