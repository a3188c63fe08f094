"""What a store promises, on a local folder and on servers of each kind; and on ones that fail."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from isospace.collection.alias import alias_history, promote, resolve, rollback
from isospace.collection.snapshot import Manifest, commit_manifest, latest_manifest, sequences
from isospace.errors import ConfigError, ConflictError, IntegrityError, NotFoundError, StoreError
from isospace.evaluation.gate.verdicts import Verdict, read_verdicts, write_verdict
from isospace.storage.leases import run_lease
from isospace.storage.object_store import ObjectStore
from isospace.storage.store import Store, open_store
from tests.helpers.azurite import container_signature
from tests.helpers.faulty_server import ALWAYS, FaultyServer, Matches, anything
from tests.helpers.object_servers import BUCKET, SECRET, Place, gcs_place

BIG = bytes(range(250)) * 80_000
NAMES = [
    "a name with spaces.txt", "grüße/ü.json", "日本語.bin", "50%.txt", "a%20b.txt", "%2e%2e",
    "a+b&c=d.txt", "a#b?c", "*", "{x}",
    "'a\"b'", "a\\b", "a:b", "~tilde", ".hidden",
]  # fmt: skip
# More than a page: Azure lists 5,000 objects in one answer, the others 1,000.
MANY = [f"many/{number:05d}" for number in range(1_050)]
MANY_OF_AZURE = [f"many/{number:05d}" for number in range(5_050)]
IN_TIME = 120.0


INTEGRATION = [pytest.param(kind, marks=pytest.mark.integration) for kind in ("gcs", "azure")]


@pytest.fixture(scope="module", params=["local", "s3", *INTEGRATION])
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """More objects than a service lists in one answer."""
    if request.param == "local":
        found = open_store(tmp_path_factory.mktemp("crowded"))
    else:
        found = open_store(f"{request.getfixturevalue(request.param).bucket}/crowded")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: found.write(path, b"x"), reversed(many(found))))
    return found


def many(store: Store) -> list[str]:
    return MANY_OF_AZURE if store.url.startswith("az://") else MANY


def is_first(method: str, path: str) -> bool:
    return True


def is_part(method: str, path: str) -> bool:
    return "partNumber=" in path or "comp=block&" in path


def is_last(method: str, path: str) -> bool:
    return (method == "POST" and "uploadId=" in path) or "comp=blocklist" in path


def is_put(method: str, path: str) -> bool:
    return method == "PUT"


def impatient(store: Store, *, retries: int = 10, timeout: str = "30s") -> Store:
    """Return the same store behind a client that gives up earlier."""
    assert isinstance(store, ObjectStore)
    client = type(store.client).from_url(
        store.url, client_options={"allow_http": True, "timeout": timeout}, retry_config={"max_retries": retries}
    )
    return ObjectStore(store.url, client)


def manifest_of(run_id: str, sequence: int = 1, content: str = "a") -> Manifest:
    return Manifest(
        collection="c",
        sequence=sequence,
        snapshot_id=content * 64,
        documents_digest="d",
        space_id="s",
        encoder_id="e",
        chunking_id="k",
        recipe={},
        documents=0,
        chunks=0,
        parts=(),
        deletions=None,
        quarantine=None,
        sealed_files=(),
        provenance={"run_id": run_id},
    )


def verdict_of(manifest: Manifest) -> Verdict:
    return Verdict(
        number=0,
        collection="c",
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id="s",
        against=None,
        evaluation_set=None,
        set_id=None,
        set_kind=None,
        passed=True,
        findings=(),
        measures={},
        agreement={},
        notes=(),
        key="k",
        run_id="r",
        at="now",
        report=None,
    )


def winners(store: Store, path: str, count: int) -> list[int]:
    """Let threads create one file; return those that did."""

    def attempt(number: int) -> bool:
        return store.create_if_absent(path, str(number).encode())

    with ThreadPoolExecutor(count) as pool:
        return [number for number, won in enumerate(pool.map(attempt, range(count))) if won]


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"other")
    assert store.read("a/b.bin") == b"other"
    assert store.size("a/b.bin") == 5
    assert store.exists("a/b.bin")
    assert not store.exists("a/c.bin")
    assert store.digest("a/b.bin") == hashlib.sha256(b"other").hexdigest()


def test_what_was_deleted_is_gone_and_can_be_deleted_again(store: Store) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/c.bin", b"one")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    assert [stat.path for stat in store.walk("a")] == ["a/c.bin"]


@pytest.mark.parametrize("target", ["b", "trash/t/deep/er/b", "a b%20ü"])
def test_what_was_moved_is_at_its_new_path_alone_and_replaces_what_was_there(store: Store, target: str) -> None:
    for before in (None, b"replaced"):
        store.write("folder/a", b"moved")
        if before is not None:
            store.write(target, before)
        store.move("folder/a", target)
        assert store.read(target) == b"moved"
        assert not store.exists("folder/a")
    with pytest.raises(NotFoundError, match="folder/a"):
        store.move("folder/a", target)
    assert store.read(target) == b"moved"


@pytest.mark.parametrize("data", [b"", BIG], ids=["empty", "20 MB"])
def test_what_is_too_large_to_copy_is_moved_whole(store: Store, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("isospace.storage.object_store._COPY_BYTES", -1)
    store.write("a/b", data)
    store.move("a/b", "trash/b")
    assert store.digest("trash/b") == hashlib.sha256(data).hexdigest()
    assert not store.exists("a/b")


def test_what_is_missing_is_not_found_by_its_name(store: Store, tmp_path: Path) -> None:
    store.write("a/b.bin", b"one")
    for ask in (store.read, store.size, store.digest):
        for path in ("a/missing.bin", "nowhere/b.bin", "a/b.bin/c"):
            with pytest.raises(NotFoundError, match=re.escape(path)):
                ask(path)
    assert list(store.walk("nowhere")) == []
    assert store.folders("nowhere") == []
    with pytest.raises(NotFoundError):
        store.write_file("a/d.bin", tmp_path / "missing")
    assert not store.exists("a/d.bin")


def test_a_folder_is_no_file(store: Store) -> None:
    store.write("a/b/c.bin", b"one")
    assert not store.exists("a/b")
    with pytest.raises(NotFoundError):
        store.size("a/b")
    with pytest.raises(StoreError):
        store.read("a/b")


def test_create_writes_once_and_leaves_what_is_there(store: Store) -> None:
    store.create("a/1.json", b"first")
    with pytest.raises(ConflictError, match=re.escape("a/1.json")):
        store.create("a/1.json", b"second")
    with pytest.raises(ConflictError):
        store.create("a/1.json", b"first")
    assert store.create_if_absent("a/1.json", b"third") is False
    assert store.create_if_absent("a/2.json", b"third") is True
    assert (store.read("a/1.json"), store.read("a/2.json")) == (b"first", b"third")


def test_what_was_written_plainly_or_deleted_is_known_to_create(store: Store) -> None:
    store.write("a/1.json", b"plain")
    assert store.create_if_absent("a/1.json", b"created") is False
    store.delete("a/1.json")
    assert store.create_if_absent("a/1.json", b"created") is True
    store.write("a/1.json", b"plain")
    assert store.create_if_absent("a/1.json", b"created") is False
    assert store.read("a/1.json") == b"plain"


def test_of_many_that_create_one_file_one_wins(store: Store) -> None:
    for name in range(5):
        path = f"race/{name}.json"
        won = winners(store, path, 16)
        assert len(won) == 1
        assert store.read(path) == str(won[0]).encode()
    assert len(list(store.walk("race"))) == 5


def test_of_many_that_create_one_file_with_equal_content_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda _: store.create_if_absent("race/1.json", b"equal"), range(16)))
    assert sum(won) == 1


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_kept_as_it_is(store: Store, name: str) -> None:
    path = f"names/{name}"
    if "\\" in name and store.url.startswith("az://"):
        with pytest.raises(IntegrityError, match="backslash"):
            store.write(path, b"x")
        return
    store.write(path, b"x")
    assert [stat.path for stat in store.walk("names")] == [path]
    assert store.exists(path)
    assert (store.read(path), store.size(path)) == (b"x", 1)
    assert store.create_if_absent(path, b"y") is False
    store.delete(path)
    assert list(store.walk("names")) == []


def test_names_that_differ_in_their_escapes_are_different_files(store: Store) -> None:
    names = ["a b", "a%20b", "a%2520b", "a+b", "A b"]
    for name in names:
        store.write(name, name.encode())
    assert [store.read(name) for name in names] == [name.encode() for name in names]
    assert len(list(store.walk(""))) == len(names)


@pytest.mark.parametrize("data", [b"", BIG], ids=["empty", "20 MB"])
def test_an_object_of_any_size_arrives_whole(store: Store, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "source").write_bytes(data)
    store.write("a/written", data)
    store.create("a/created", data)
    store.write_file("a/copied", tmp_path / "source")
    expected = hashlib.sha256(data).hexdigest()
    for path in ("a/written", "a/created", "a/copied"):
        assert store.read(path) == data
        assert store.digest(path) == expected
        assert store.size(path) == len(data)
    assert [(stat.path, stat.size) for stat in store.walk("a")] == [
        (path, len(data)) for path in ("a/copied", "a/created", "a/written")
    ]


def test_write_file_replaces_what_was_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    store.write("a/b", b"old and longer")
    store.write_file("a/b", tmp_path / "source")
    assert store.read("a/b") == b"new"


def test_a_walk_is_sorted_and_goes_to_any_depth(store: Store) -> None:
    paths = ["a/b", "a/b-c/d", "a/b/c", "a/b.c", "a/B", "a/é", "a/z/y/x/w", "ab/c", "a0"]
    inside = sorted(path for path in paths if path.startswith("a/") and path != "a/b")
    for path in paths:
        if path != "a/b":
            store.write(path, path.encode())
    for folder in ("a", "a/"):
        assert [(stat.path, stat.size) for stat in store.walk(folder)] == [(p, len(p.encode())) for p in inside]
    assert [stat.path for stat in store.walk("a/b")] == ["a/b/c"]
    assert [stat.path for stat in store.walk("")] == sorted([*inside, "ab/c", "a0"])


def test_folders_are_those_directly_below(store: Store) -> None:
    for path in ("a/file", "a/z/1", "a/b c/1", "a/50%/1", "a/é/deep/er/1", "ab/other/1"):
        store.write(path, b"")
    assert store.folders("a") == ["50%", "b c", "z", "é"]
    assert store.folders("a/é/deep") == ["er"]
    assert store.folders("a/z") == []


def test_a_listing_of_more_than_a_thousand_objects_is_complete(crowded: Store) -> None:
    assert [stat.path for stat in crowded.walk("many")] == many(crowded)
    assert crowded.folders("many") == []


@pytest.mark.integration
def test_a_reader_never_sees_a_half_written_file(store: Store) -> None:
    versions = [bytes([number]) * (1 + 997 * number) for number in range(200)]
    store.write("a/b", versions[0])
    whole, done = set(versions), Event()

    def read_on() -> int:
        seen = 0
        while not done.is_set():
            assert store.read("a/b") in whole
            assert [stat.path for stat in store.walk("a")] == ["a/b"]
            seen += 1
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_on) for _ in range(2)]
        try:
            for version in versions:
                store.write("a/b", version)
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    assert store.read("a/b") == versions[-1]


def test_of_many_that_write_one_large_file_each_succeeds(store: Store) -> None:
    versions = [bytes([number]) * (11 << 20) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda data: store.write("a/big", data), versions))
    assert store.read("a/big") in versions


def test_one_store_can_be_used_from_any_prefix(store: Store) -> None:
    store.write("a/b/c", b"x")
    below = open_store(f"{store.url}/a")
    assert below.read("b/c") == b"x"
    assert [stat.path for stat in below.walk("")] == ["b/c"]


def test_a_store_can_be_pickled_for_a_worker(store: Store) -> None:
    store.write("a/b", b"x")
    again = pickle.loads(pickle.dumps(store))
    assert (type(again), again.url, again.root) == (type(store), store.url, store.root)
    assert again.read("a/b") == b"x"


def test_a_local_folder_is_known_of_a_local_store_alone(tmp_path: Path, endpoint: str) -> None:
    assert open_store(tmp_path).root == tmp_path
    assert open_store(f"file://{tmp_path}").root == tmp_path
    assert open_store(f"{BUCKET}/any").root is None


OPERATIONS: dict[str, tuple[Callable[[Store, Path], object], object]] = {
    "read": (lambda store, source: store.read("a/b"), b"there"),
    "read missing": (lambda store, source: store.exists("a/missing"), False),
    "size": (lambda store, source: store.size("a/b"), 5),
    "exists": (lambda store, source: store.exists("a/b"), True),
    "digest": (lambda store, source: store.digest("a/b"), hashlib.sha256(b"there").hexdigest()),
    "walk": (lambda store, source: [stat.path for stat in store.walk("a")], ["a/b", "a/c/d"]),
    "folders": (lambda store, source: store.folders("a"), ["c"]),
    "write": (lambda store, source: store.write("a/b", b"new"), None),
    "write_file": (lambda store, source: store.write_file("a/b", source), None),
    "create": (lambda store, source: store.create_if_absent("a/new", b"new"), True),
    "create existing": (lambda store, source: store.create_if_absent("a/b", b"new"), False),
    "delete": (lambda store, source: store.delete("a/b"), None),
}
LEFT = {
    "write": {"a/b": b"new", "a/c/d": b""},
    "write_file": {"a/b": b"new", "a/c/d": b""},
    "create": {"a/b": b"there", "a/c/d": b"", "a/new": b"new"},
    "delete": {"a/c/d": b""},
}
FAULTS: dict[str, Callable[[FaultyServer, Matches], None]] = {
    "500 twice": lambda faulty, matches: faulty.refuse(2, matches=matches),
    "503 SlowDown twice": lambda faulty, matches: faulty.slow_down(2, matches=matches),
    "a lost answer": lambda faulty, matches: faulty.lose_answer(1, matches=matches),
    "a late answer": lambda faulty, matches: faulty.delay(1, 0.2, matches=matches),
}


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_outlives_a_passing_fault(
    remote: Store, direct: Store, faulty: FaultyServer, tmp_path: Path, operation: str, fault: str
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    direct.write("a/b", b"there")
    direct.write("a/c/d", b"")
    act, expected = OPERATIONS[operation]
    FAULTS[fault](faulty, anything)
    assert act(remote, tmp_path / "source") == expected
    assert faulty.pending() == 0
    left = {stat.path: direct.read(stat.path) for stat in direct.walk("")}
    assert left == LEFT.get(operation, {"a/b": b"there", "a/c/d": b""})


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("matches", [is_first, is_part, is_last])
def test_a_large_write_outlives_a_passing_fault(
    remote: Store, direct: Store, faulty: FaultyServer, matches: Matches, fault: str
) -> None:
    FAULTS[fault](faulty, matches)
    remote.write("a/big", BIG)
    assert faulty.pending() == 0
    assert direct.digest("a/big") == hashlib.sha256(BIG).hexdigest()


@pytest.mark.parametrize(
    ("crowded", "place"),
    [("s3", "s3"), *(pytest.param(kind, kind, marks=pytest.mark.integration) for kind in ("gcs", "azure"))],
    indirect=True,
)
def test_a_listing_whose_second_page_fails_is_complete(
    crowded: Store, place: Place, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(place.variable, place.address(faulty.url))
    faulty.slow_down(2, matches=lambda method, path: "continuation-token" in path or "marker=" in path)
    assert [stat.path for stat in open_store(crowded.url).walk("many")] == many(crowded)
    assert faulty.pending() == 0
    assert faulty.count("GET") == 4


@pytest.mark.parametrize("data", [b"0123456789", BIG], ids=["small", "20 MB"])
def test_a_body_cut_half_way_is_fetched_whole(remote: Store, direct: Store, faulty: FaultyServer, data: bytes) -> None:
    direct.write("a/b", data)
    faulty.cut_body(2)
    assert remote.read("a/b") == data
    faulty.cut_body(2)
    assert remote.digest("a/b") == hashlib.sha256(data).hexdigest()
    assert faulty.pending() == 0


def test_a_body_that_is_always_cut_is_an_error_and_never_short_data(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    direct.write("a/b", b"0123456789")
    faulty.cut_body(ALWAYS)
    client = impatient(remote, retries=2)
    for ask in (client.read, client.digest):
        with pytest.raises(StoreError, match=re.escape("a/b: the store")):
            ask("a/b")


def test_a_listing_cut_half_way_is_an_error_and_never_short(remote: Store, direct: Store, faulty: FaultyServer) -> None:
    for number in range(20):
        direct.write(f"a/{number}/b", b"")
    for ask in (lambda: list(remote.walk("a")), lambda: remote.folders("a")):
        faulty.cut_body(1)
        with suppress(StoreError):
            assert len(ask()) == 20
        assert faulty.pending() == 0


@pytest.mark.integration
def test_a_server_that_stays_broken_is_one_clear_error_in_bounded_time(remote: Store, faulty: FaultyServer) -> None:
    faulty.refuse(ALWAYS, matches=lambda method, path: method == "GET")
    faulty.slow_down(ALWAYS)

    def attempt(operation: str) -> tuple[str, float]:
        started = time.monotonic()
        with pytest.raises(StoreError) as caught:
            OPERATIONS[operation][0](remote, Path(__file__))
        assert type(caught.value) is StoreError
        return str(caught.value), time.monotonic() - started

    with ThreadPoolExecutor(len(OPERATIONS)) as pool:
        for operation, (message, seconds) in zip(OPERATIONS, pool.map(attempt, OPERATIONS), strict=True):
            assert seconds < IN_TIME, operation
            assert remote.url in message
            assert "Fix the store, and run the same command again" in message
            assert SECRET not in message
    assert faulty.count("PUT") > 3


@pytest.mark.integration
def test_no_secret_is_in_what_a_store_says(
    remote: Store, direct: Store, place: Place, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.secret in os.environ.values()
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{SECRET}-token")
    with_token = open_store(remote.url)
    direct.write("a/b", b"there")
    assert place.secret not in repr(with_token)
    said = []
    for status in (400, 403, 404, 409, 412):
        for operation in ("read", "size", "walk", "folders", "write", "delete"):
            faulty.heal()
            faulty.refuse(ALWAYS, status=status)
            try:
                OPERATIONS[operation][0](with_token, Path(__file__))
            except StoreError as error:
                said.append("".join(traceback.format_exception(error)))
    faulty.heal()
    with pytest.raises(ConflictError) as caught:
        with_token.create("a/b", b"")
    said.append("".join(traceback.format_exception(caught.value)))
    assert len(said) > 20
    assert not [text for text in said if SECRET in text or place.secret in text]


def test_a_password_in_the_endpoint_is_not_in_an_error(
    remote: Store, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.url.replace("//", "//somebody:hush@now@"))
    store = open_store(remote.url)
    assert "hush" not in repr(store)
    faulty.refuse(1, status=403)
    with pytest.raises(StoreError, match=r"at http://127\.0\.0\.1:.*access denied") as caught:
        store.read("a/b")
    assert not re.search("somebody|hush|now@", str(caught.value))


def test_credentials_in_the_url_of_a_store_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="AWS_") as caught:
        open_store(f"s3://key:{SECRET}@bucket/prefix")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("lost", [1, 3])
def test_a_commit_whose_answer_was_lost_is_ours_and_committed_once(
    remote: Store, direct: Store, faulty: FaultyServer, lost: int
) -> None:
    manifest = manifest_of("run-1")
    faulty.lose_answer(lost, matches=is_put)
    assert commit_manifest(remote, manifest) == manifest
    assert faulty.pending() == 0
    assert faulty.count("PUT") == lost + 1
    assert sequences(direct, "c") == [1]
    assert latest_manifest(direct, "c") == manifest


def test_a_commit_whose_answer_comes_too_late_is_ours(remote: Store, direct: Store, faulty: FaultyServer) -> None:
    manifest = manifest_of("run-1")
    faulty.delay(1, 2.0, matches=is_put)
    assert commit_manifest(impatient(remote, timeout="500ms"), manifest) == manifest
    assert faulty.pending() == 0
    assert faulty.count("PUT") == 1
    assert latest_manifest(direct, "c") == manifest


def test_a_commit_with_a_lost_answer_does_not_take_what_another_run_has_committed(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    theirs = commit_manifest(direct, manifest_of("run-1"))
    faulty.lose_answer(2, matches=is_put)
    with pytest.raises(ConflictError, match="run-1 committed"):
        commit_manifest(remote, manifest_of("run-2", content="b"))
    assert latest_manifest(direct, "c") == theirs


def test_a_commit_refused_for_another_at_the_same_time_is_tried_again(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    faulty.refuse(2, status=409, matches=is_put)
    manifest = manifest_of("run-1")
    assert commit_manifest(remote, manifest) == manifest
    assert latest_manifest(direct, "c") == manifest


def test_a_commit_always_refused_with_nothing_there_is_no_conflict(remote: Store, faulty: FaultyServer) -> None:
    faulty.refuse(ALWAYS, status=409, matches=is_put)
    with pytest.raises(StoreError, match="has no such file") as caught:
        commit_manifest(remote, manifest_of("run-1"))
    assert type(caught.value) is StoreError
    assert remote.url in str(caught.value)


def test_of_many_that_create_one_file_one_wins_though_answers_are_lost(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    faulty.lose_answer(12, matches=is_put)
    won = winners(remote, "race/1.json", 16)
    assert faulty.pending() == 0
    assert len(won) == 1
    assert direct.read("race/1.json") == str(won[0]).encode()


def test_a_promotion_whose_answer_was_lost_is_recorded_once_and_said_to_be_done(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    manifest = commit_manifest(direct, manifest_of("run-1"))
    faulty.lose_answer(1, matches=is_put)
    entry = promote(remote, "c", "production", manifest, reason="why")
    assert faulty.pending() == 0
    assert entry is not None
    assert alias_history(direct, "c", "production") == [entry]
    assert resolve(direct, "c", "production") == manifest


def test_a_rollback_whose_answer_was_lost_is_recorded_once_and_goes_back_one(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    for sequence, content in enumerate("abc", start=1):
        manifest = commit_manifest(direct, manifest_of(f"run-{sequence}", sequence, content))
        promote(direct, "c", "production", manifest, reason="why")
    faulty.lose_answer(1, matches=is_put)
    entry = rollback(remote, "c", "production", reason="why not")
    assert faulty.pending() == 0
    history = alias_history(direct, "c", "production")
    assert history[3:] == [entry]
    assert (entry.number, entry.snapshot) == (4, 2)
    assert rollback(direct, "c", "production", reason="and again").snapshot == 1


def test_a_verdict_whose_answer_was_lost_is_written_once(remote: Store, direct: Store, faulty: FaultyServer) -> None:
    manifest = manifest_of("run-1")
    faulty.lose_answer(1, matches=is_put)
    verdict = write_verdict(remote, verdict_of(manifest))
    assert faulty.pending() == 0
    assert read_verdicts(direct, "c", manifest.snapshot_id) == [verdict]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "minio", "ftp://127.0.0.1", "http://", "http:// x", SECRET])
def test_an_endpoint_that_is_no_url_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL is not a URL") as caught:
        open_store("s3://bucket/prefix")
    assert SECRET not in str(caught.value)


def test_a_run_starts_only_where_a_file_is_created_once(store: Store) -> None:
    with run_lease(store, "c", "a test"):
        pass
    assert list(store.walk("")) == []


def test_a_service_that_ignores_the_condition_of_a_creation_is_refused(endpoint: str) -> None:
    with gcs_place(endpoint, ignores_conditions=True) as place:
        store = open_store(f"{place.bucket}/ignored")
        with pytest.raises(StoreError, match="replaced an existing file"), run_lease(store, "c", "a test"):
            raise AssertionError("it ran")
        assert list(store.walk("")) == []


def test_a_service_that_allows_one_write_a_second_to_an_object_is_waited_for(
    remote: Store, faulty: FaultyServer
) -> None:
    faulty.refuse(2, status=429, matches=is_put)
    with run_lease(remote, "c", "a test"):
        assert faulty.pending() == 0


def test_a_bucket_that_is_not_there_is_named_with_the_remedy(place: Place) -> None:
    store = open_store(f"{place.bucket}-missing/prefix")
    for ask in (lambda: list(store.walk("a")), lambda: store.folders("a"), lambda: store.write("a/b", b"x")):
        with pytest.raises(StoreError, match=r"there is no (bucket|container) bucket-missing\. Correct") as caught:
            ask()
        assert type(caught.value) is StoreError


def test_nobody_listens_is_said_in_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(place.variable, place.address(f"http://127.0.0.1:{port}"))
    store = impatient(open_store(f"{place.bucket}/prefix"), retries=0)
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        store.read("a/b")
    assert "\n" not in str(caught.value)


@pytest.mark.integration
@pytest.mark.parametrize("place", ["azure"], indirect=True)
def test_a_shared_access_signature_is_enough_and_never_said(
    place: Place, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv(place.variable, place.address(faulty.url))
    signature = container_signature("bucket", place.secret)
    secret = signature.partition("&sig=")[2]
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"?{signature}")
    store = open_store(f"{place.bucket}/signed")
    store.write("a/big", BIG)
    store.move("a/big", "b/big")
    assert store.create_if_absent("b/big", b"x") is False
    assert [stat.path for stat in store.walk("")] == ["b/big"]
    store.delete("b/big")
    said = [repr(store)]
    for status in (400, 403, 404, 409, 412):
        for operation in ("read", "size", "walk", "folders", "write", "delete", "create"):
            faulty.heal()
            faulty.refuse(ALWAYS, status=status)
            try:
                OPERATIONS[operation][0](store, Path(__file__))
            except StoreError as error:
                said.append("".join(traceback.format_exception(error)))
    assert len(said) > 20
    assert not [text for text in said if secret in text]


@pytest.mark.integration
@pytest.mark.parametrize("place", ["azure"], indirect=True)
def test_a_wrong_key_and_a_signature_without_the_right_are_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with pytest.raises(StoreError, match=r"at http://127.*\(Auth\w+\)"):
        list(open_store(f"{place.bucket}/x").walk("a"))
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", container_signature("bucket", place.secret, permissions="rl"))
    store = open_store(f"{place.bucket}/x")
    assert list(store.walk("a")) == []
    for ask in (lambda: store.write("a/b", b"x"), lambda: store.create("a/b", b"x"), lambda: store.delete("a/b")):
        with pytest.raises(StoreError, match=r"access denied.*Storage Blob Data Contributor"):
            ask()


@pytest.mark.integration
@pytest.mark.parametrize("place", ["azure"], indirect=True)
def test_a_move_on_azure_does_not_rely_on_a_copy_that_may_still_be_going_on(
    remote: Store, direct: Store, faulty: FaultyServer
) -> None:
    direct.write("a/b", b"moved")
    remote.move("a/b", "c/d")
    assert direct.read("c/d") == b"moved"
    # It is read here: a copy by the service would be a single PUT.
    assert faulty.count("GET") == 1
