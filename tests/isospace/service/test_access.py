"""Keys and tokens that show a part of the collection, and attempts to see the rest."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from isospace.errors import ConfigError, ScopeError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.search.query_cache import CacheConfig
from isospace.service.keys import Keys, digest, read_keys
from isospace.service.settings import Settings
from isospace.service.tokens import TokenRules, Tokens, token_rules
from tests.helpers.serving import serving

ALL, ENGLISH = "a-key-for-everything", "a-key-for-english-texts"
QUERY = "the protein of a cell"
SECRET = "s" * 40
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("access") / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def guarded(opened: Index, secret: Path) -> Iterator[str]:
    keys = {digest(ALL): None, digest(ENGLISH): 'lang == "en"'}
    rules = TokenRules(None, "lang in $langs and year >= $since", "search", "https://id.example", secret)
    with serving(opened, Settings(keys=keys, tokens=rules)) as url:
        yield url


@pytest.fixture
def ask(guarded: str) -> Ask:
    def asked(key: str = ENGLISH, path: str = "/search", **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(guarded + path, json={"query": QUERY, "k": 1000, **body}, headers=headers, timeout=60)

    return asked


def langs(answer: httpx.Response) -> set[str]:
    return {hit["metadata"]["lang"] for result in answer.json()["results"] for hit in result["hits"]}


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    base = {"exp": time.time() + 600, "aud": "search", "iss": "https://id.example", "langs": ["en"], "since": 2015}
    return jwt.encode({name: one for name, one in {**base, **claims}.items() if one is not None}, key, algorithm)


@pytest.mark.parametrize("mode", ["auto", "exact", "quantized", "lexical", "hybrid"])
@pytest.mark.parametrize("more", [{}, {"filter": "year >= 2015"}], ids=["plain", "filtered"])
def test_every_mode_shows_what_the_key_shows(ask: Ask, mode: str, more: dict[str, str]) -> None:
    assert langs(ask(ALL, mode=mode, **more)) == {"en", "de"}
    answer = ask(mode=mode, **more)
    assert langs(answer) == {"en"}
    everything = [hit for hit in ask(ALL, mode=mode, **more).json()["results"][0]["hits"]]
    if mode == "exact":
        allowed = [(hit["chunk_id"], hit["score"]) for hit in everything if hit["metadata"]["lang"] == "en"]
        assert [(hit["chunk_id"], hit["score"]) for hit in answer.json()["results"][0]["hits"]] == allowed


@pytest.mark.parametrize(
    "attack",
    [
        {"filter": 'lang == "de"'},
        {"filter": 'lang == "en" or lang == "de"'},
        {"filter": 'lang != "en"'},
        {"filter": 'not (lang == "en")'},
        {"filter": "lang is None or lang is not None"},
        {"filter": 'lang in ["de", "en"]'},
        {"filter": 'meta["lang"] == "de"'},
        {"filter": "year >= 0 or year < 0"},
        {"filter": ') or (lang == "de"'},
        {"filter": 'lang == "en") or (lang == "de"'},
        {"filter": "True"},
        {"filter": 'lang == "en"\nor lang == "de"'},
        {"filter": "lang == $langs"},
        {"filter": 'lang == "d" "e"'},
        {"scope": None},
        {"scope": 'lang == "de"'},
        {"scope": ""},
        {"within": [0, 1]},
        {"metric": "l1", "mode": "exact"},
        {"metric": "l2"},
        {"representation": "binary", "rescore": 0},
        {"representation": "int8", "rescore": 1000},
        {"mode": "hybrid", "fusion": "weighted", "weights": [0, 1], "depth": 1000},
        {"query": [QUERY, 'lang == "de"', "title d00001"]},
        {"filter": ""},
        {"filter": None},
    ],
    ids=lambda attack: json.dumps(attack),
)
def test_no_request_widens_what_a_key_shows(ask: Ask, attack: dict[str, Any]) -> None:
    answer = ask(**attack)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert langs(answer) <= {"en"}
    else:
        assert '"de"' not in answer.text.replace(json.dumps(attack.get("filter"))[1:-1], "")


@pytest.mark.parametrize("mode", ["exact", "quantized", "lexical", "hybrid"])
def test_pages_hold_what_the_key_shows_and_end_there(ask: Ask, mode: str) -> None:
    everything = [hit["chunk_id"] for hit in ask(mode=mode, depth=1000).json()["results"][0]["hits"]]
    shown: list[str] = []
    for offset in range(0, 140, 20):
        answer = ask(mode=mode, depth=1000, k=20, offset=offset)
        assert langs(answer) <= {"en"}
        shown += [hit["chunk_id"] for hit in answer.json()["results"][0]["hits"]]
    assert shown == everything


def test_a_hidden_chunk_is_no_example_and_as_one_that_does_not_exist(ask: Ask) -> None:
    hits = ask(ALL, mode="exact").json()["results"][0]["hits"]
    shown, hidden = ([hit["chunk_id"] for hit in hits if hit["metadata"]["lang"] == lang][:2] for lang in ("en", "de"))
    assert langs(ask(query=None, like=shown)) == {"en"}
    assert langs(ask(ALL, query=None, like=hidden)) == {"en", "de"}
    missing = ask(query=None, like="nothing")
    for like in (hidden[0], [hidden[0]], [shown[0], hidden[0]], hidden):
        answers = [
            ask(query=None, like=like),
            ask(query=None, like=like, filter='lang == "de"'),
            ask(query=None, like=like, k=5, offset=0, group_by="document", mode="quantized"),
            ask(token(), query=None, like=like),
        ]
        for answer in answers:
            assert answer.status_code == missing.status_code == 404
            assert answer.text.replace(hidden[0], "nothing") == missing.text
    # Whatever else is wrong is told before that.
    for wrong in ({"filter": "nope == 1"}, {"mode": "lexical"}, {"snapshot_id": "0" * 64}):
        told = [ask(query=None, like=like, **wrong) for like in (hidden[0], "nothing")]
        assert told[0].status_code == told[1].status_code != 404
        assert told[0].text.replace(hidden[0], "nothing") == told[1].text


def test_neither_a_header_nor_a_parameter_of_the_url_widens_it(guarded: str) -> None:
    for extra in ("X-Isospace-Scope", "X-Forwarded-Authorization", "X-Original-Authorization", "Proxy-Authorization"):
        headers = {"Authorization": f"Bearer {ENGLISH}", extra: f"Bearer {ALL}"}
        answer = httpx.post(f"{guarded}/search?scope=&filter=year>0", json={"query": QUERY, "k": 900}, headers=headers)
        assert langs(answer) == {"en"}
    twice = [("Authorization", f"Bearer {ENGLISH}"), ("Authorization", "Bearer wrong-key-wrong-key")]
    assert langs(httpx.post(f"{guarded}/search", json={"query": QUERY, "k": 900}, headers=twice)) == {"en"}


def test_requests_that_are_batched_together_do_not_mix(ask: Ask) -> None:
    keys = [ALL, ENGLISH, token(langs=["de"])] * 8
    with ThreadPoolExecutor(len(keys)) as threads:
        found = list(threads.map(lambda key: langs(ask(key)), keys))
    assert found == [{"en", "de"}, {"en"}, {"de"}] * 8


def test_cached_answers_of_others_are_not_shown(plain_store: str, opened: Index) -> None:
    with open_index(plain_store, "c", cache=CacheConfig(semantic=0.5)) as index:
        first = index.search(QUERY, 100)
        again = index.search(QUERY, 100, scope='lang == "en"')
        assert {hit.metadata["lang"] for hit in again[0]} == {"en"}
        assert index.search(QUERY, 100) == first
        assert index.cache.counts.semantic == 1


def test_a_search_by_words_instead_keeps_the_scope() -> None:
    options = SearchOptions(mode="hybrid", scope='lang == "en"', filter="year > 2000", k=7)
    assert options.by_words() == SearchOptions(mode="lexical", scope='lang == "en"', filter="year > 2000", k=7)


def test_a_filter_means_the_same_whatever_a_key_shows(opened: Index) -> None:
    passing = opened.view.passing("year > 2016", scope='lang == "en" and year > 1')
    joined = opened.view.passing('lang == "en" and year > 2016')
    assert passing is not None
    assert joined is not None
    assert 0 < len(joined) < len(opened.view.copy)
    assert passing.tolist() == joined.tolist()
    # No document is shown, and so nothing is wrong with the type of the field.
    nothing = opened.view.passing("year > 2016", scope='lang == "fr"')
    assert nothing is not None
    assert nothing.tolist() == []


def test_what_counts_others_is_refused(guarded: str) -> None:
    for key, status in ((ALL, 200), (ENGLISH, 403), (token(), 403)):
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{guarded}/metrics", headers=headers).status_code == status
        assert httpx.get(f"{guarded}/v1/models", headers=headers).status_code == 200


def test_a_key_does_not_learn_what_the_service_cannot_follow(
    opened: Index, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "problem", "collections/c is damaged")
    for key, said in ((ALL, True), (ENGLISH, False)):
        ready = httpx.get(f"{guarded}/readyz", headers={"Authorization": f"Bearer {key}"}).text
        assert ("damaged" in ready) == said


def test_a_filter_that_does_not_fit_the_snapshot_shows_nothing(opened: Index, caplog: pytest.LogCaptureFixture) -> None:
    keys = {digest(ENGLISH): 'tenant == "a"', digest(ALL): "year == 'x'"}
    with serving(opened, Settings(keys=keys)) as url:
        for key in (ENGLISH, ALL):
            answer = httpx.post(f"{url}/search", json={"query": QUERY}, headers={"Authorization": f"Bearer {key}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope")
            assert "tenant" not in answer.text
            assert "year" not in answer.text
    assert "no document has the field 'tenant'" in caplog.text


def test_a_token_shows_what_its_claims_say(ask: Ask) -> None:
    assert langs(ask(token())) == {"en"}
    assert langs(ask(token(langs=["en", "de"]))) == {"en", "de"}
    assert langs(ask(token(langs=[]))) == set()
    years = {hit["metadata"]["year"] for hit in ask(token(since=2020)).json()["results"][0]["hits"]}
    assert min(years) >= 2020
    assert langs(ask(token(langs=['en") or lang in ("de', "en"]))) == {"en"}


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(exp=time.time() - 60),
        lambda: token(exp=None),
        lambda: token(aud="another"),
        lambda: token(aud=None),
        lambda: token(iss="https://evil.example"),
        lambda: token(iss=None),
        lambda: token("x" * 40),
        lambda: token(nbf=time.time() + 600),
        lambda: altered(token(), {"langs": ["de"]}),
        lambda: unsigned(token()),
        lambda: token().rsplit(".", 1)[0] + ".",
        lambda: token() + "A",
        lambda: "a.b.c",
        lambda: "...",
    ],
)
def test_a_token_that_was_not_signed_for_this_service_admits_nobody(ask: Ask, bad: Callable[[], str]) -> None:
    assert ask(bad()).status_code == 401


def test_a_token_without_a_claim_shows_nothing(ask: Ask) -> None:
    answer = ask(token(langs=None))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope")
    assert "needs a claim 'langs'" in answer.text
    assert ask(token(langs={"a": "en"})).status_code == 403


def altered(encoded: str, claims: dict[str, Any]) -> str:
    head, body, signature = encoded.split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps(content | claims).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


def unsigned(encoded: str) -> str:
    body = encoded.split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{head}.{body}."


PRIVATE: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_public_keys_verify_and_are_no_secrets(tmp_path: Path, algorithm: str) -> None:
    key = PRIVATE[algorithm]()
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(key))
    tokens = Tokens(TokenRules(path, "lang in $langs"))
    assert tokens.scope_of(token(key, algorithm, aud=None)) == "lang in ['en']"
    assert tokens.scope_of(token(PRIVATE[algorithm](), algorithm, aud=None)) is None
    # With the public key as the secret of an HMAC: PyJWT itself refuses to sign so.
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
    body = token(key, algorithm, aud=None).split(".")[1]
    import hashlib
    import hmac

    signature = hmac.new(path.read_bytes(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert tokens.scope_of(f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}") is None
    # For an audience that this service did not state.
    assert tokens.scope_of(token(key, algorithm)) is None


RSA_KEY = PRIVATE["RS256"]()


def der(encoding: serialization.Encoding = serialization.Encoding.DER) -> bytes:
    return bytes(RSA_KEY.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"s" * 40, "is not a public key or a certificate in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not a public key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is a private key"),
        (public_pem(RSA_KEY).decode().encode("utf-16"), "is not a public key"),
        (der(), "is not a public key"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_key_is_refused_at_the_start(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Tokens(TokenRules(path, "lang in $langs"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "5 bytes; expected 32 or more"),
        (public_pem(RSA_KEY), "a public key goes to --token-key"),
        (public_pem(RSA_KEY).decode().encode("utf-16"), "of letters, digits"),
        (der(), "of letters, digits"),
        (base64.b64encode(der()), "is a public key"),
        (base64.urlsafe_b64encode(der()).rstrip(b"="), "is a public key"),
        (base64.encodebytes(der()), "of letters, digits"),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS256"}', "of letters, digits"),
        (b"https://id.example/.well-known/jwks.json", "of letters, digits"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO8h6X3v5p4e2w", "of letters, digits"),
        (None, "cannot be read"),
    ],
)
def test_what_may_be_public_is_no_secret(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Tokens(TokenRules(None, "lang in $langs", secret=path))


def test_options_that_belong_together(secret: Path) -> None:
    rules = TokenRules(None, "a == $a", "x", None, secret)
    assert token_rules(None, None, None, None, None) is None
    assert token_rules(None, secret, "a == $a", "x", None) == rules
    for given, message in (
        ((secret, None, None, None, None), "Give --token-filter"),
        ((None, secret, None, None, None), "Give --token-filter"),
        ((secret, secret, "a == $a", None, None), "signed with one of them"),
        ((None, None, None, "x", None), "--token-audience: has no effect"),
    ):
        with pytest.raises(ConfigError, match=message):
            token_rules(*given)
    with pytest.raises(ConfigError, match="--token-filter: filter"):
        Tokens(TokenRules(None, "a ==", secret=secret))
    with pytest.raises(ConfigError, match="neither a key nor a secret"):
        Tokens(TokenRules(None, "a == $a"))
    # With tokens alone, requests need one.
    Settings(host="0.0.0.0", tokens=rules)
    assert Keys({}, None, Tokens(rules)).admitted(None) is None


def test_where_the_service_is_watched_a_token_without_a_claim_is_no_token(guarded: str) -> None:
    headers = {"Authorization": f"Bearer {token(langs=None)}"}
    for path in ("/healthz", "/readyz", "/", "/docs"):
        assert httpx.get(guarded + path, headers=headers).status_code == 200
    assert httpx.get(f"{guarded}/v1/models", headers=headers).status_code == 403


def test_filters_in_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f'{ALL}\n{ENGLISH}   filter: lang == "en" and note == "a, b"\n')
    assert read_keys(path) == {digest(ALL): None, digest(ENGLISH): 'lang == "en" and note == "a, b"'}
    for bad, message in (
        (f"{ENGLISH} lang == 'en'", "a line has more than a key"),
        (f"{ENGLISH} filter: lang ==", "filter"),
        (f"{ENGLISH} filter:", "filter"),
        (f"{ENGLISH}\nfilter:lang=='en'", "a key contains `filter:`"),
        (f"{ENGLISH} filter: tags contains 'en'", "`contains` cannot tell what may be seen"),
        (f"{ENGLISH} filter: lang == $lang", "needs a token"),
        (f"{ENGLISH}\n{ENGLISH} filter: lang == 'en'", "two lines with different filters"),
    ):
        path.write_text(f"{bad}\n")
        with pytest.raises(ConfigError, match=message) as caught:
            read_keys(path)
        assert ENGLISH not in str(caught.value)


def test_the_environment_holds_no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOSPACE_API_KEYS", f"{ALL},{ENGLISH} filter: lang == 'en'")
    with pytest.raises(ConfigError, match=r"ISOSPACE_API_KEYS: a key contains `filter:`\. Filters need a file"):
        read_keys(None)


def test_half_a_line_of_a_filter_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path, line = tmp_path / "keys", f'{ENGLISH} filter: lang == "en" and year <= 2030'
    path.write_text(f"{ALL}\n{line}\n")
    read = read_keys(path)
    keys = Keys(read, path)
    # Also between the first reading and the start, which may take a minute.
    path.write_text(f"{ALL}\n{ENGLISH}")
    assert Keys(read, path).known == read
    for end in range(1, len(line) + 1):
        path.write_text(f"{ALL}\n{line[:end]}")
        keys.read_again()
        access = keys.admitted(f"Bearer {ENGLISH}")
        assert access is not None
        assert access.scope == 'lang == "en" and year <= 2030'
        assert keys.problem


def test_a_filter_that_changes_in_the_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{ENGLISH} filter: lang == 'en'\n")
    keys = Keys(read_keys(path), path)
    path.write_text(f"\ufeff{ENGLISH} filter: lang == 'f\u2028r'\r\n")
    keys.follow()
    keys.follow()
    access = keys.admitted(f"Bearer {ENGLISH}")
    assert access is not None
    assert access.scope == "lang == 'f\u2028r'"
    assert "with another filter: 1" in caplog.text


def test_the_library_takes_a_scope(opened: Index) -> None:
    assert {hit.metadata["lang"] for hit in opened.search(QUERY, 100, scope='lang == "de"')[0]} == {"de"}
    with pytest.raises(ScopeError):
        opened.search(QUERY, scope='tenant == "a"')
