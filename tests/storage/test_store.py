import pickle
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.faultproxy import FaultProxy, Rule

from zsic.core.errors import StoreError
from zsic.core.spec import StoreSpec
from zsic.storage.store import Store, open_store


def test_created_object_is_whole_and_listed(store: Store) -> None:
    assert store.create("a/one.parquet", b"1" * 1000)
    assert store.read("a/one.parquet") == b"1" * 1000
    assert list(store.list("a")) == [("a/one.parquet", 1000)]
    assert list(store.list()) == []
    with store.open("a/one.parquet") as file:
        file.seek(998)
        assert file.read() == b"11"


def test_second_creation_never_changes_the_first(store: Store) -> None:
    assert store.create("x", b"first")
    assert not store.create("x", b"second")
    assert store.read("x") == b"first"


def test_creation_that_meets_its_own_earlier_attempt_succeeds(store: Store) -> None:
    assert store.create("x", b"same")
    assert store.create("x", b"same")


def test_of_many_writers_at_once_one_wins(store: Store) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        # Each with a client of its own, as each process has.
        if pickle.loads(pickle.dumps(store)).create("race", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("race") == b"%d" % won[0]


def test_what_is_not_there(store: Store) -> None:
    assert store.read("nothing") is None
    assert list(store.list("nothing")) == []
    store.delete("nothing")


def test_deleted_object_is_gone(store: Store) -> None:
    store.create("x", b"1")
    store.delete("x")
    assert store.read("x") is None


def test_listing_is_in_order_of_names(store: Store) -> None:
    names = [f"p/{number:04d}" for number in range(30)]
    for name in reversed(names):
        store.create(name, b"")
    assert [name for name, _ in store.list("p")] == names


def test_listing_goes_over_pages(
    s3_bucket: tuple[str, str], fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    store = open_store(f"s3://{s3_bucket[1]}/out", StoreSpec(s3_endpoint_url=fault_proxy.url))
    names = [f"p/{number:04d}" for number in range(30)]
    for name in names:
        store.create(name, b"")
    assert [name for name, _ in store.list("p")] == names
    assert fault_proxy.count("list-type=2") == 5


def test_digest_tells_contents_apart(store: Store) -> None:
    store.create("a", b"1")
    store.create("b", b"1")
    store.create("c", b"2")
    assert store.digest("a") == store.digest("b") != store.digest("c")


def test_a_refused_creation_leaves_nothing_behind(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"), StoreSpec())
    store.create("x", b"1")
    assert not store.create("x", b"2")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["x"]


def test_a_home_folder_may_be_written_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/out", StoreSpec()).uri == str(tmp_path / "out")


def test_unwritable_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = open_store(str(tmp_path / "file" / "out"), StoreSpec())
    with pytest.raises(StoreError, match="cannot write"):
        store.create("x", b"1")


def test_missing_bucket_is_explained(s3_bucket: tuple[str, str]) -> None:
    endpoint, _ = s3_bucket
    store = open_store("s3://no-such-bucket-here/out", StoreSpec(s3_endpoint_url=endpoint))
    with pytest.raises(StoreError, match="no-such-bucket-here"):
        store.create("x", b"1")


def test_an_impossible_name_is_refused_at_once(s3_environment: None) -> None:
    store = open_store("s3://Not!A!Bucket/out", StoreSpec(attempts=8))
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"s3://Not!A!Bucket/out: no bucket or object can have such a name"):
        store.read("x")
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("uri", ["gs://bucket/out", "http://host/out"])
def test_store_without_a_proof_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="scheme"):
        open_store(uri, StoreSpec())


def test_pickle_holds_no_credentials(s3_bucket: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, bucket = s3_bucket
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-SECRET")
    store = open_store(f"s3://{bucket}/out", StoreSpec(s3_endpoint_url=endpoint))
    store.create("x", b"1")
    data = pickle.dumps(store)
    # An open s3fs may hold credentials; each process opens its own.
    assert b"S3FileSystem" not in data
    assert b"CANARY" not in data


FAULTS = [
    Rule(".", "unavailable", times=3),
    Rule(".", "error", 500, "InternalError", times=3),
    Rule(".", "reset", times=2),
    Rule("GET", "truncate", 10, times=1),
    Rule("GET", "stall", 10, times=1),
    Rule("GET .*list-type", "unavailable", times=2),
    Rule("PUT", "lose", times=1),
    Rule("PUT", "unavailable", times=2),
    Rule("DELETE", "lose", times=1),
]


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: f"{rule.match} {rule.act} {rule.times}")
def test_passing_faults_of_s3_are_mended(s3_bucket: tuple[str, str], fault_proxy: FaultProxy, rule: Rule) -> None:
    store = open_store(f"s3://{s3_bucket[1]}/out", StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=6, timeout_s=1))
    fault_proxy.rules = [replace(rule)]
    assert store.create("a", b"1" * 1000)
    assert store.read("a") == b"1" * 1000
    with store.open("a") as file:
        file.seek(500)
        assert file.read() == b"1" * 500
    assert not store.create("a", b"2")
    assert list(store.list()) == [("a", 1000)]
    store.delete("a")
    assert store.read("a") is None
    assert fault_proxy.rules[0].times == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(".", "unavailable"), "failed"),
        (Rule(".", "error", 403, "AccessDenied"), "failed"),
        (Rule(".", "reset"), "failed"),
        (Rule("GET", "stall"), "in time"),
        (Rule("GET", "truncate", 10), "failed"),
    ],
    ids=lambda each: each.act if isinstance(each, Rule) else "",
)
def test_lasting_faults_of_s3_end_in_a_store_error_soon(
    s3_bucket: tuple[str, str], fault_proxy: FaultProxy, rule: Rule, words: str
) -> None:
    spec = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2, timeout_s=1)
    store = open_store(f"s3://{s3_bucket[1]}/out", spec)
    store.create("there", b"1" * 1000)
    fault_proxy.rules = [rule]
    started = time.monotonic()
    operations: list[Callable[[], object]] = [lambda: store.read("there"), lambda: list(store.list())]
    if rule.match == ".":
        operations += [
            lambda: store.create("a", b"1"),
            lambda: store.open("there"),
            lambda: store.delete("there"),
            lambda: store.digest("there"),
        ]
    for operate in operations:
        with pytest.raises(StoreError, match=words):
            operate()
    assert time.monotonic() - started < 60


def test_a_server_that_never_asks_for_the_body_is_given_up(s3_bucket: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = open_store(f"s3://{s3_bucket[1]}/out", StoreSpec(s3_endpoint_url=endpoint, attempts=2, timeout_s=0.5))
        started = time.monotonic()
        with pytest.raises(StoreError, match="in time"):
            store.create("a", b"1" * 1000)
        assert time.monotonic() - started < 30


def test_a_file_where_the_folder_should_be_is_explained(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"), StoreSpec())
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StoreError, match="cannot write"):
        store.create("a", b"1")
    with pytest.raises(StoreError, match="cannot read"):
        store.read("a")
    assert list(store.list()) == []
