from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from isospace.encoding.served.counting import served_tokenizer
from isospace.errors import ConfigError
from isospace.search.index import Index
from isospace.service.errors import Problem
from isospace.service.settings import Settings
from isospace.service.token_ids import decoded, open_decoder
from tests.helpers.serving import serving


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The tokenizer.json of another model: IDs of its own, and every text can be told from them."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(served_tokenizer("budget").data)
    return path


@pytest.mark.parametrize("text", ["hello world", "Ünïcode 機械 😀\n\ttabs", " spaces  around "])
def test_ids_become_the_text_that_they_were_made_of(foreign: Path, text: str) -> None:
    [ids] = served_tokenizer("budget").ids([text])
    assert decoded([tuple(ids), "as it is"], open_decoder(str(foreign))) == [text, "as it is"]


def test_without_a_tokenizer_ids_stay_what_they_are() -> None:
    assert decoded([(1, 2), "text"], None) == [(1, 2), "text"]


def test_ids_of_no_token_are_refused() -> None:
    def decoder(ids: object) -> str:
        raise KeyError("no such token")

    with pytest.raises(Problem, match=r"input\[1\]: token IDs \[7, 8\]… are not of the tokenizer") as caught:
        decoded(["fine", (7, 8)], decoder)
    assert caught.value.status == 400


def test_what_the_library_would_leave_out_is_refused(foreign: Path) -> None:
    [ids] = served_tokenizer("budget").ids(["é"])
    for wrong in ([*ids, 999_999], ids[:1]):
        with pytest.raises(Problem, match="are not of the tokenizer"):
            decoded([tuple(wrong)], open_decoder(str(foreign)))


def test_a_tokenizer_that_loses_something_of_a_text_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="expected the same text"):
        open_decoder(str(tiny_model / "tokenizer.json"))


def test_a_tokenizer_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--token-ids none\.json: cannot be loaded"):
        open_decoder("none.json")
    with pytest.raises(ConfigError, match="--token-ids tiktoken:no_such_encoding: cannot be loaded"):
        open_decoder("tiktoken:no_such_encoding")


def test_a_client_that_sends_ids_gets_the_vectors_of_its_texts(opened: Index, foreign: Path) -> None:
    texts = ["alpha beta", "gamma"]
    with serving(opened, Settings(port=0, token_ids=str(foreign))) as url, httpx.Client(base_url=url) as client:
        ids = served_tokenizer("budget").ids(texts)
        sent = [client.post("/v1/embeddings", json={"input": one, "model": "c"}).json() for one in (texts, ids)]
    plain, from_ids = ([item["embedding"] for item in answer["data"]] for answer in sent)
    assert np.array_equal(plain, from_ids)
