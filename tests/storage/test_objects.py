import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from support.faultproxy import FaultProxy, Rule
from support.place import Place

from zsic.core.errors import SourceError, SpecError
from zsic.core.outcome import Failure, Outcome
from zsic.core.spec import StoreSpec
from zsic.storage.objects import ObjectInfo, Objects, ReadError

ODD_NAMES = ["a b.jpg", "per%20cent%.jpg", "q?x=1.jpg", "hash#1.jpg", "ü-é.jpg", "=cmd|x.jpg", "[0].jpg", "tab\t.jpg"]


def failure_of(call: Callable[[], object]) -> Failure:
    with pytest.raises(ReadError) as caught:
        call()
    return caught.value.failure


def test_lists_everything_below_a_folder_in_order_with_what_identifies_it(place: Place) -> None:
    for name in ("p/b.jpg", "p/a.jpg", "p/sub/deep/c.jpg", "other/d.jpg", "p2.jpg"):
        place.put(name, name.encode())
    found = list(Objects(place.store).list(place.at("p")))
    assert [info.uri for info in found] == [place.at(f"p/{name}") for name in ("a.jpg", "b.jpg", "sub/deep/c.jpg")]
    assert found[0].size == len("p/a.jpg")
    assert (found[0].etag or found[0].mtime_ns) is not None
    assert [Objects(place.store).stat(info.uri) for info in found] == found


def test_a_listing_goes_only_so_deep_and_only_where_names_begin_so(place: Place) -> None:
    for name in ("x1.jpg", "x2/a.jpg", "x2/b/c.jpg", "y.jpg"):
        place.put(f"p/{name}")
    objects = Objects(place.store)

    def names(**limits: object) -> list[str]:
        found = objects.list(place.at("p"), **limits)  # type: ignore[arg-type]
        return [info.uri.removeprefix(place.at("p/")) for info in found]

    assert names(depth=1) == ["x1.jpg", "y.jpg"]
    assert names(starting="x") == ["x1.jpg", "x2/a.jpg", "x2/b/c.jpg"]
    assert names(starting="x", depth=2) == ["x1.jpg", "x2/a.jpg"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_listed_and_read_by_what_the_listing_says(place: Place, name: str) -> None:
    place.put(f"p/{name}", b"content")
    [info] = Objects(place.store).list(place.at("p"))
    assert info.uri == place.at(f"p/{name}")
    assert Objects(place.store).read(info.uri, expect=info, max_bytes=100) == b"content"


def test_reads_whole_objects_and_ranges(place: Place) -> None:
    uri = place.put("o.bin", bytes(range(256)))
    objects = Objects(place.store)
    assert objects.read(uri, max_bytes=256) == bytes(range(256))
    assert objects.read(uri, start=10, end=20, max_bytes=10) == bytes(range(10, 20))
    assert objects.read(uri, start=250, end=300, max_bytes=50) == bytes(range(250, 256))
    assert objects.read(place.put("empty", b""), max_bytes=1) == b""


def test_what_is_not_there_is_missing(place: Place) -> None:
    objects = Objects(place.store)
    assert failure_of(lambda: objects.read(place.at("no.jpg"), max_bytes=9)).outcome is Outcome.MISSING
    assert failure_of(lambda: objects.stat(place.at("no.jpg"))).outcome is Outcome.MISSING
    assert not objects.is_folder(place.at("no"))


def test_an_object_over_the_limit_is_refused_listed_or_not(place: Place) -> None:
    uri = place.put("big.jpg", bytes(1000))
    objects = Objects(place.store)
    expected = Failure(Outcome.TOO_LARGE, "1000 bytes are more than decode.max_bytes (999)")
    assert failure_of(lambda: objects.read(uri, max_bytes=999)) == expected
    assert failure_of(lambda: objects.read(uri, expect=objects.stat(uri), max_bytes=999)) == expected
    assert len(objects.read(uri, max_bytes=1000)) == 1000


@pytest.mark.parametrize("now", [b"longer than it was", b"SAME BYTE"])
def test_another_version_than_the_listed_one_is_changed(place: Place, now: bytes) -> None:
    uri = place.put("a.jpg", b"same byte")
    objects = Objects(place.store)
    listed = objects.stat(uri)
    place.put("a.jpg", now)
    if place.s3 is None:  # The clock of a file system ticks in milliseconds.
        os.utime(uri, ns=(0, (listed.mtime_ns or 0) + 1))
    assert failure_of(lambda: objects.read(uri, expect=listed, max_bytes=99)).outcome is Outcome.CHANGED
    assert failure_of(lambda: objects.read(uri, start=0, end=2, expect=listed, max_bytes=99)).outcome is Outcome.CHANGED
    place.delete("a.jpg")
    assert failure_of(lambda: objects.read(uri, expect=listed, max_bytes=99)).outcome is Outcome.MISSING


def test_a_rewritten_object_with_the_same_bytes_is_the_same_version(s3_place: Place) -> None:
    uri = s3_place.put("a.jpg", b"bytes")
    listed = Objects(s3_place.store).stat(uri)
    older = ObjectInfo(uri, listed.size, listed.etag, (listed.mtime_ns or 0) - 10**12)
    assert Objects(s3_place.store).read(uri, expect=older, max_bytes=99) == b"bytes"


def test_many_are_read_in_order_and_one_failure_harms_no_other(place: Place) -> None:
    uris = [place.put(f"{number}.jpg", bytes([number]) * number) for number in range(20)]
    objects = Objects(place.store)
    infos = [objects.stat(uri) for uri in uris]
    place.delete("7.jpg")
    infos[9] = ObjectInfo(uris[9], None)
    answers = list(objects.read_many(infos, max_bytes=15))
    assert len(answers) == 20
    for number, answer in enumerate(answers):
        if number == 7:
            assert isinstance(answer, Failure)
            assert answer.outcome is Outcome.MISSING
        elif number > 15:
            assert isinstance(answer, Failure)
            assert answer.outcome is Outcome.TOO_LARGE
        else:
            assert answer == bytes([number]) * number


def test_reading_many_holds_a_window_of_bytes(tmp_path: Path) -> None:
    objects = Objects(StoreSpec(), window_bytes=1000)
    infos = []
    for number in range(30):
        (tmp_path / str(number)).write_bytes(bytes(300))
        infos.append(objects.stat(str(tmp_path / str(number))))
    asked = []

    def watched() -> object:
        for info in infos:
            asked.append(info)
            yield info

    answers = objects.read_many(watched(), max_bytes=1000)  # type: ignore[arg-type]
    for n_done, _ in enumerate(answers):
        # Three fit the window; one more has been taken from the iterator and waits for room.
        assert len(asked) <= n_done + 4
    assert len(asked) == 30


def test_a_caller_that_stops_early_does_not_wait(s3_place: Place, fault_proxy: FaultProxy) -> None:
    uris = [s3_place.put(f"{number}.jpg") for number in range(8)]
    fault_proxy.rules = [Rule("GET .*/[1-7].jpg", "stall")]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=1))
    answers = objects.read_many([ObjectInfo(uri, 1) for uri in uris], max_bytes=9, concurrency=4)
    started = time.monotonic()
    assert next(answers) == b"x"
    answers.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_a_stream_gives_the_same_bytes_however_it_is_cut(place: Place, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    objects = Objects(place.store, chunk_bytes=100, whole_bytes=99)
    with objects.open_stream(objects.stat(place.put("o", content))) as stream:
        start, rest = stream.take(7), b""
        skipped = stream.skip(150)
        while piece := stream.take(33):
            rest += piece
        assert stream.position == size
    assert start == content[:7]
    assert skipped == max(0, min(150, size - 7))
    assert rest == content[157:]


# Faults


def test_passing_errors_are_tried_again(s3_place: Place, fault_proxy: FaultProxy) -> None:
    uri = s3_place.put("a.jpg", bytes(100_000))
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=4, timeout_s=0.5))
    for rule in (
        Rule("^GET", "unavailable", times=2),
        Rule("^GET", "error", 500, "InternalError", times=2),
        Rule("^GET", "reset", times=2),
        Rule("^GET", "lose", times=2),
        Rule("^GET", "truncate", 5000, times=2),
        Rule("^GET", "stall", 5000, times=1),
    ):
        fault_proxy.rules, fault_proxy.requests = [rule], []
        assert objects.read(uri, max_bytes=10**6) == bytes(100_000), rule
        assert len(fault_proxy.requests) == (2 if rule.act == "stall" else 3), rule


def test_the_number_of_attempts_is_what_the_spec_says(s3_place: Place, fault_proxy: FaultProxy) -> None:
    uri = s3_place.put("a.jpg")
    fault_proxy.rules = [Rule("^GET", "unavailable")]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2))
    failure = failure_of(lambda: objects.read(uri, max_bytes=9))
    assert failure == Failure(Outcome.UNREACHABLE, "the store answered 503 SlowDown (2 attempts)")
    assert len(fault_proxy.requests) == 2


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule("^GET", "stall"), "the store did not answer in time (2 attempts)"),
        (Rule("^GET", "stall", 5000), "the store did not answer in time (2 attempts)"),
        (Rule("^GET", "reset"), "the connection failed (2 attempts)"),
        (Rule("^GET", "truncate", 5000), "the connection failed (2 attempts)"),
    ],
)
def test_a_store_that_does_not_answer_ends_in_time_and_in_words_without_addresses(
    s3_place: Place, fault_proxy: FaultProxy, rule: Rule, words: str
) -> None:
    uri = s3_place.put("a.jpg", bytes(100_000))
    fault_proxy.rules = [rule]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2, timeout_s=0.5))
    started = time.monotonic()
    assert failure_of(lambda: objects.read(uri, max_bytes=10**6)) == Failure(Outcome.UNREACHABLE, words)
    assert time.monotonic() - started < 10


def test_a_body_that_trickles_is_given_up(s3_place: Place, fault_proxy: FaultProxy) -> None:
    uri = s3_place.put("a.jpg", bytes(1000))
    fault_proxy.rules = [Rule("^GET", "trickle", 50)]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2, timeout_s=0.5))
    started = time.monotonic()
    assert failure_of(lambda: objects.read(uri, max_bytes=10**6)).outcome is Outcome.UNREACHABLE
    assert time.monotonic() - started < 5


def test_nobody_listens_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        objects = Objects(StoreSpec(s3_endpoint_url=url, attempts=2, s3_anonymous=True))
        failure = failure_of(lambda: objects.read("s3://bucket/key", max_bytes=9))
    assert failure == Failure(Outcome.UNREACHABLE, "the connection failed (2 attempts)")


@pytest.mark.parametrize(
    ("status", "code", "outcome", "n_requests"),
    [
        (403, "AccessDenied", Outcome.FORBIDDEN, 1),
        (403, "InvalidObjectState", Outcome.FORBIDDEN, 1),
        (404, "NoSuchKey", Outcome.MISSING, 1),
        (404, "NoSuchBucket", Outcome.MISSING, 1),
        (400, "InvalidRequest", Outcome.FORBIDDEN, 1),
        (400, "ExpiredToken", Outcome.UNREACHABLE, 1),
        (403, "InvalidAccessKeyId", Outcome.UNREACHABLE, 1),
        (429, "TooManyRequests", Outcome.UNREACHABLE, 2),
        (500, "InternalError", Outcome.UNREACHABLE, 2),
    ],
)
def test_only_what_speaks_of_the_object_is_final(
    s3_place: Place, fault_proxy: FaultProxy, status: int, code: str, outcome: Outcome, n_requests: int
) -> None:
    uri = s3_place.put("a.jpg")
    fault_proxy.rules = [Rule("^GET", "error", status, code)]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2))
    failure = failure_of(lambda: objects.read(uri, max_bytes=9))
    assert failure.outcome is outcome
    assert failure.detail.startswith(f"the store answered {status} {code}")
    assert len(fault_proxy.requests) == n_requests


@pytest.mark.parametrize(
    ("uri", "outcome"),
    [
        ("s3://Not!A!Bucket/a.jpg", Outcome.MISSING),
        ("s3://bucket", Outcome.NOT_AN_IMAGE),
        ("/nul\0byte.jpg", Outcome.MISSING),
        ("/" + "x" * 300, Outcome.MISSING),
        ("/etc/hostname/x", Outcome.MISSING),
    ],
)
def test_impossible_names_are_failures_like_any_other(s3_environment: None, uri: str, outcome: Outcome) -> None:
    objects = Objects(StoreSpec(attempts=2))
    assert failure_of(lambda: objects.read(uri, max_bytes=9)).outcome is outcome
    assert failure_of(lambda: objects.stat(uri)).outcome is outcome


def test_a_stream_survives_faults_without_losing_or_doubling_a_byte(s3_place: Place, fault_proxy: FaultProxy) -> None:
    content = os.urandom(9_500)
    uri = s3_place.put("o", content)
    fault_proxy.rules = [
        Rule("^GET", "truncate", 333, after=1, times=1),
        Rule("^GET", "unavailable", after=2, times=2),
        Rule("^GET", "reset", after=4, times=1),
    ]
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=4, timeout_s=0.5)
    objects = Objects(store, chunk_bytes=1000, whole_bytes=1000)
    with objects.open_stream(objects.stat(uri)) as stream:
        assert stream.take(20_000) == content
    assert fault_proxy.count("^GET") == 10 + 4


def test_a_stream_of_an_object_that_changes_meanwhile_says_so(s3_place: Place, fault_proxy: FaultProxy) -> None:
    uri = s3_place.put("o", bytes(9_500))
    fault_proxy.rules = [Rule("^GET", "call", callback=lambda: s3_place.put("o", os.urandom(9_500)), after=5)]
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    objects = Objects(store, chunk_bytes=1000, whole_bytes=1000)
    with objects.open_stream(objects.stat(uri)) as stream:
        assert stream.take(3000) == bytes(3000)
        assert failure_of(lambda: stream.take(6000)).outcome is Outcome.CHANGED


def test_a_listing_asks_again_for_a_page_and_gives_each_key_once(
    s3_place: Place, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    uris = [s3_place.put(f"p/{number}.jpg") for number in range(8)]
    fault_proxy.rules = [
        Rule("list-type=2", "truncate", 40, after=1, times=1),
        Rule("list-type=2", "unavailable", after=1, times=1),
    ]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=4, timeout_s=0.5))
    assert [info.uri for info in objects.list(s3_place.at("p"))] == uris
    assert fault_proxy.count("list-type=2") == 3 + 2


def test_a_listing_holds_one_page(s3_place: Place, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(8):
        s3_place.put(f"p/{number}.jpg")
    listing = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)).list(s3_place.at("p"))
    for n_seen, _ in enumerate(listing):
        assert len(fault_proxy.requests) == n_seen // 3 + 1


def test_a_listing_that_cannot_be_had_is_an_error(s3_place: Place, fault_proxy: FaultProxy) -> None:
    fault_proxy.rules = [Rule("^GET", "error", 403, "AccessDenied")]
    objects = Objects(StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2))
    with pytest.raises(SourceError, match=r"cannot be listed: the store answered 403 AccessDenied"):
        list(objects.list(s3_place.at("p")))
    with pytest.raises(SourceError, match=r"404 NoSuchBucket"):
        list(Objects(s3_place.store).list("s3://zsic-no-such-bucket/p"))


# Disk


def test_disk_follows_links_once_and_opens_nothing_but_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    objects = Objects(StoreSpec())
    found = {info.uri.removeprefix(f"{tmp_path}/"): info for info in objects.list(str(tmp_path))}
    assert sorted(found) == ["a/x.jpg", "b/x.jpg", "dangling.jpg"]
    dangling = found["dangling.jpg"]
    assert failure_of(lambda: objects.read(dangling.uri, expect=dangling, max_bytes=9)).outcome is Outcome.MISSING
    pipe = str(tmp_path / "pipe.jpg")
    assert failure_of(lambda: objects.read(pipe, max_bytes=9)).detail == "not a regular file"
    assert failure_of(lambda: objects.read(str(tmp_path), max_bytes=9)).detail == "a folder"


def test_a_name_that_is_no_utf8_is_spelled_as_a_url_and_read_by_it(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %41.jpg")).write_bytes(b"coffee")
    objects = Objects(StoreSpec())
    [info] = objects.list(str(tmp_path))
    assert info.uri == f"file://{tmp_path}/caf%E9%20%2541.jpg"
    assert objects.read(info.uri, expect=info, max_bytes=9) == b"coffee"


def test_file_urls_and_paths_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(b"x")
    objects = Objects(StoreSpec())
    assert objects.read(path.as_uri(), max_bytes=9) == objects.read(str(path), max_bytes=9) == b"x"
    with pytest.raises(SpecError, match=r"three slashes; 'photos' would be a host"):
        objects.read("file://photos/a.jpg", max_bytes=9)


# Other schemes


def test_any_fsspec_scheme_that_is_allowed_is_a_source() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe({"/zsic/p/a.jpg": b"aa", "/zsic/p/sub/b.jpg": b"b", "/zsic/q.jpg": b"c"})
    objects = Objects(StoreSpec(allow_schemes=("memory",)))
    found = list(objects.list("memory://zsic/p"))
    assert [info.uri for info in found] == ["memory://zsic/p/a.jpg", "memory://zsic/p/sub/b.jpg"]
    assert objects.read(found[0].uri, expect=found[0], max_bytes=9) == b"aa"
    assert objects.read(found[0].uri, start=1, end=2, max_bytes=1) == b"a"
    assert objects.is_folder("memory://zsic/p")
    assert failure_of(lambda: objects.read("memory://zsic/none", max_bytes=9)).outcome is Outcome.MISSING
    assert failure_of(lambda: objects.read(found[0].uri, max_bytes=1)).outcome is Outcome.TOO_LARGE
    files.pipe("/zsic/p/a.jpg", b"longer")
    assert failure_of(lambda: objects.read(found[0].uri, expect=found[0], max_bytes=9)).outcome is Outcome.CHANGED


@pytest.mark.parametrize("uri", ["http://169.254.169.254/x", "zip://x::s3://b/a.zip", "memory://a", "ftp://h/a"])
def test_only_allowed_schemes_are_opened(uri: str) -> None:
    with pytest.raises(SpecError, match=r"store.allow_schemes is file, s3; "):
        Objects(StoreSpec()).read(uri, max_bytes=9)
    with pytest.raises(SpecError, match=r"store.allow_schemes is s3; "):
        Objects(StoreSpec(allow_schemes=("s3",))).read("/etc/hostname", max_bytes=9)


# What crosses processes


def test_pickles_hold_neither_credentials_nor_connections(s3_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY")
    objects = Objects(s3_place.store)
    uri = s3_place.put("a.jpg")
    assert objects.read(uri, max_bytes=9) == b"x"
    pickled = pickle.dumps(objects)
    assert b"CANARY" not in pickled
    assert pickle.loads(pickled).read(uri, max_bytes=9) == b"x"
    error = ReadError(Failure(Outcome.MISSING, "gone"))
    assert pickle.loads(pickle.dumps(error)).failure == error.failure


def test_reads_still_work_after_a_fork(s3_place: Place) -> None:
    uri = s3_place.put("a.jpg", b"forked")
    objects = Objects(s3_place.store)
    objects.read(uri, max_bytes=9)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os.write(writer, objects.read(uri, max_bytes=9))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 9) == b"forked"
    os.close(reader)


def test_uris_sort_as_the_store_lists_them(place: Place) -> None:
    for name in ("p/B.jpg", "p/a.jpg", "p/a/b.jpg", "p/a0.jpg"):
        if place.s3 is None and name == "p/a/b.jpg":
            continue
        place.put(name)
    uris = [info.uri for info in Objects(place.store).list(place.at("p"))]
    assert all(before < after for before, after in pairwise(uris))
