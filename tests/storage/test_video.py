"""Videos as sources: rows, what is left of damaged ones, listing, resuming."""

import importlib.util
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from support.faultproxy import FaultProxy, Rule
from support.place import Place
from support.videos import make_streamable, make_video

from zsic.core.errors import SourceError, SpecError
from zsic.core.outcome import Failure, Outcome
from zsic.core.schema import INDEX_BITS
from zsic.core.spec import JobSpec, StoreSpec, make_spec
from zsic.storage.objects import Objects
from zsic.storage.pending import PendingCount
from zsic.storage.rows import make_rows, read_sources_rows
from zsic.storage.sample import End, Sample, Source
from zsic.storage.samples import read_samples
from zsic.storage.sources import list_sources
from zsic.storage.video import count_frames, require_av


def make_job(uris: object = "unused", fps: float | None = 2, max_pixels: int = 10**6, **source: object) -> JobSpec:
    return make_spec(
        {
            "source": {"uris": uris, "fps": fps, **source},
            "labels": ["cat", "dog"],
            "output": "unused",
            "decode": {"max_pixels": max_pixels},
        }
    )


def source_at(uri: str, store: StoreSpec) -> tuple[Source, Objects]:
    objects = Objects(store)
    info = objects.stat(uri)
    return Source(uri, "video", info.size, info.etag, info.mtime_ns), objects


def read(
    uri: str, store: StoreSpec, skip: frozenset[int] = frozenset(), job: JobSpec | None = None
) -> tuple[list[Sample], End]:
    source, objects = source_at(uri, store)
    *samples, end = read_samples(source, objects, job or make_job(), skip=lambda index: index in skip)
    assert isinstance(end, End)
    found = [sample for sample in samples if isinstance(sample, Sample)]
    assert [sample.index for sample in found] == [index for index in range(end.total) if index not in skip]
    return found, end


def test_each_frame_that_is_wanted_is_a_sample_named_by_its_time(place: Place) -> None:
    samples, end = read(place.put("a.mp4", make_video("mp4", 25)), place.store)
    assert end == End(5)
    assert [sample.key for sample in samples] == [f"00:00:0{k // 2}.{k % 2 * 5}00" for k in range(5)]
    for sample in samples:
        with Image.open(io.BytesIO(sample.data or b"")) as picture:
            assert (picture.format, picture.size) == ("PPM", (64, 48))


def test_what_is_skipped_is_not_given_and_the_rest_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    path.write_bytes(make_video("webm", 30, noise=True))
    samples, end = read(str(path), StoreSpec())
    rest, same_end = read(str(path), StoreSpec(), frozenset((0, 1, 3)))
    assert rest == [sample for sample in samples if sample.index not in (0, 1, 3)]
    assert same_end == end == End(6)


def test_a_damaged_video_gives_the_rows_before_and_one_in_place_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    data = make_video("mkv", 30, noise=True)
    path.write_bytes(data[: len(data) * 2 // 3])
    samples, end = read(str(path), StoreSpec())
    *good, last = samples
    assert 2 <= len(good) < 6
    assert all(sample.data for sample in good)
    failure = Failure(Outcome.BAD_SHARD, f"the video breaks off at 00:00:0{len(good) // 2}.{len(good) % 2 * 5}00")
    assert last == Sample(len(good), None, None, failure)
    assert end == End(len(samples), failure)
    # All have been written but the last: it is not read as a picture now.
    again, _ = read(str(path), StoreSpec(), frozenset(range(len(good))))
    assert again == [last]


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"", Outcome.EMPTY),
        (b"garbage" * 100, Outcome.BAD_SHARD),
        (make_video("mp4", 5)[:300], Outcome.BAD_SHARD),
        (make_video("avi", 0), Outcome.EMPTY),
    ],
)
def test_what_is_no_video_is_one_sample(data: bytes, outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(data)
    [sample], end = read(str(tmp_path / "a.mp4"), StoreSpec())
    assert sample.failure is not None
    assert (sample.key, sample.data, sample.failure.outcome) == (None, None, outcome)
    assert end == End(1, sample.failure)


def test_pictures_above_the_limit_are_one_sample(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(make_video("mp4", 5))
    [sample], _ = read(str(tmp_path / "a.mp4"), StoreSpec(), job=make_job(max_pixels=100))
    detail = "video: 64 x 48, more than decode.max_pixels, 100"
    assert sample.failure == Failure(Outcome.TOO_MANY_PIXELS, detail)


def test_a_read_that_fails_keeps_its_own_reason(s3_place: Place, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    uri = s3_place.put("a.mp4", make_streamable(tmp_path))
    store = StoreSpec(s3_endpoint_url=fault_proxy.url, attempts=2)
    whole, _ = read(uri, store)
    assert len(whole) == 6
    source, objects = source_at(uri, store)
    s3_place.put("a.mp4", make_streamable(tmp_path) + b"more")
    [sample, end] = list(read_samples(source, objects, make_job()))
    assert isinstance(sample, Sample)
    assert sample.failure is not None
    assert sample.failure.outcome is Outcome.CHANGED
    assert end == End(1, sample.failure)
    source, objects = source_at(uri, store)
    fault_proxy.rules.append(Rule("^GET", "unavailable"))
    [sample, end] = list(read_samples(source, objects, make_job()))
    assert isinstance(sample, Sample)
    assert sample.failure is not None
    assert sample.failure.outcome is Outcome.UNREACHABLE


def test_rows_of_a_video_that_is_taken_up_again_fit_those_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(make_video("mp4", 30, noise=True))
    source, objects = source_at(str(path), StoreSpec())
    job = make_job()
    rows = list(read_sources_rows([(7, source)], objects, job))
    assert [row.id for row in rows] == [7 << INDEX_BITS | k for k in range(6)]
    assert [row.source_total for row in rows] == [None] * 5 + [6]
    again = list(read_sources_rows([(7, source)], objects, job, skip=((0, 3),)))
    assert again == rows[3:]
    # The video has become shorter since: the rows that are missing say so.
    path.write_bytes(make_video("mp4", 10, noise=True))
    source, objects = source_at(str(path), StoreSpec())
    samples = read_samples(source, objects, job, skip=lambda index: index < 3)
    [row] = make_rows(7, source, samples, skip=((0, 3),))
    assert (row.id, row.source_total) == (7 << INDEX_BITS | 3, 4)
    assert row.failure == Failure(Outcome.BAD_SHARD, "fewer images than an earlier attempt found")


def kinds(job: JobSpec) -> dict[str, str]:
    listing = list_sources(job.source, Objects(job.store))
    return {Path(row["uri"]).name: row["kind"] for batch in listing for row in batch.to_pylist()}


def test_videos_are_sources_only_where_frames_are_asked_for(tmp_path: Path) -> None:
    for name in ("a.MP4", "b.mov", "c.jpg", "d.webm", "_e.mkv", "notes.txt", "f.tar"):
        (tmp_path / name).write_bytes(b"x")
    images = {
        "a.MP4": "image",
        "b.mov": "image",
        "c.jpg": "image",
        "d.webm": "image",
        "_e.mkv": "image",
        "f.tar": "tar",
    }
    videos = dict.fromkeys(("a.MP4", "b.mov", "d.webm", "_e.mkv"), "video")
    assert kinds(make_job(str(tmp_path), None)) == images
    assert kinds(make_job(str(tmp_path), 1)) == images | videos
    assert kinds(make_job(f"{tmp_path}/*.MP4", 1)) == {"a.MP4": "video"}
    assert kinds(make_job(str(tmp_path), 1, format="video")) == videos
    assert kinds(make_job(str(tmp_path / "c.jpg"), 1, format="video")) == {"c.jpg": "video"}  # named, so meant
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match="no source of format 'video'"):
        kinds(make_job(str(tmp_path / "pictures"), 1, format="video"))


def test_a_manifest_may_name_videos_and_its_columns_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(make_video("mp4", 20))
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": "a.mp4", "camera": "north"}) + "\n")
    job = make_job(str(tmp_path / "list.jsonl"), keep_columns=["camera"])
    objects = Objects(job.store)
    [batch] = list_sources(job.source, objects)
    [source] = [Source(**row) for row in batch.to_pylist()]
    assert source.kind == "video"
    rows = list(read_sources_rows([(0, source)], objects, job))
    assert [json.loads(row.kept or "") for row in rows] == [{"camera": "north"}] * 4


def test_how_many_frames_there_will_be_is_known_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(make_video("mp4", 50))
    source, objects = source_at(str(path), StoreSpec())
    assert count_frames(source, objects, make_job()) == 10
    job = make_job(str(path))
    counted = PendingCount()
    for batch in list_sources(job.source, objects):
        counted.add(batch)
    assert counted.estimate(objects, job).n_images == 10
    (tmp_path / "b.mp4").write_bytes(b"garbage")
    assert count_frames(source_at(str(tmp_path / "b.mp4"), StoreSpec())[0], objects, job) == 1


def test_a_rate_is_a_rate() -> None:
    for fps in (0, -1, 1001):
        with pytest.raises(SpecError, match=r"source\.fps"):
            make_job(fps=fps)
    with pytest.raises(SpecError, match=r"source\.fps: source\.format is video, which needs a rate of frames"):
        make_job(fps=None, format="video")


def test_without_its_package_a_job_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SpecError,
        match=r"needs the package av on every machine; install it: pip install -c constraints.txt '\.\[video\]'",
    ):
        require_av()
