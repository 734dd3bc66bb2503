"""Which frames of a video are rows, and what is left of a video that is damaged."""

import io
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.videos import HEIGHT, KINDS, STEP, WIDTH, decode_all, make_sound, make_streamable, make_video, turn

from zsic.core.film import CODECS, MAX_HOURS, Film, FilmError, Frame, is_cut_short, sniff_container, time_key
from zsic.core.outcome import Failure, Outcome


def read(data: bytes, fps: float = 10, *, max_pixels: int = 10**6, upright: bool = True) -> list[Frame]:
    film = Film(io.BytesIO(data), max_pixels=max_pixels, upright=upright)
    return [frame for frame in film.frames(fps) if frame is not None]


def read_until_damage(
    data: bytes,
    fps: float = 10,
    *,
    max_pixels: int = 10**6,
    max_hours: int = MAX_HOURS,
    codecs: Collection[str] = CODECS,
) -> tuple[list[Frame], Failure | None]:
    """The rows before the damage, and what it is."""
    frames: list[Frame] = []
    try:
        film = Film(io.BytesIO(data), max_pixels=max_pixels, upright=True, codecs=codecs)
        for frame in film.frames(fps, max_hours=max_hours):
            if frame is not None:
                frames.append(frame)
    except FilmError as error:
        return frames, error.failure
    return frames, None


def number_of(frame: Frame) -> int:
    """Which frame of the video it is, by its grey."""
    return round(float(frame.pixels_HW3[-8:, -8:].mean()) / STEP)


@pytest.mark.parametrize("ending", KINDS)
def test_rows_are_the_very_frames_at_their_times(ending: str) -> None:
    data = make_video(ending, 30, noise=True)
    rows = read(data, 2.5)
    assert [row.index for row in rows] == list(range(8))
    assert [row.key for row in rows][:3] == ["00:00:00.000", "00:00:00.400", "00:00:00.800"]
    for row, wanted in zip(rows, decode_all(data)[::4], strict=True):
        assert np.array_equal(row.pixels_HW3, wanted)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.sampled_from([0.1, 0.3, 1, 2, 10, 29.97, 100]),
    st.sampled_from(["mp4", "mkv"]),
)
def test_a_row_is_the_last_frame_that_began_by_its_time(gaps: list[int], fps: float, ending: str) -> None:
    pts = [0]
    for gap in gaps:
        pts.append(pts[-1] + gap)
    rows = read(make_video(ending, len(pts), pts=pts), fps)
    times = [Fraction(k) / Fraction(str(fps)) for k in range(len(rows))]
    assert [number_of(row) for row in rows] == [
        max(i for i, at in enumerate(pts) if Fraction(at, 10) <= time) for time in times
    ]
    assert Fraction(pts[-1], 10) - 1 / Fraction(str(fps)) < times[-1]  # no time before the last frame is left out
    keys = [row.key for row in rows]
    assert keys == sorted(set(keys))


def test_time_begins_with_the_first_frame() -> None:
    rows = read(make_video("mkv", 5, pts=[70, 80, 90, 100, 110]), 1)
    assert [(row.key, number_of(row)) for row in rows][:2] == [("00:00:00.000", 0), ("00:00:01.000", 1)]


@given(st.integers(0, 100 * 3600 * 1000 - 2), st.floats(0.001, 1000))
def test_keys_sort_and_differ(index: int, fps: float) -> None:
    if (index + 1) / fps < 100 * 3600:
        assert time_key(index, fps) < time_key(index + 1, fps)


@pytest.mark.parametrize(
    ("matrix", "operation"),
    [
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),  # a phone held upright
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    ],
)
def test_pictures_stand_upright_unless_the_job_says_no(
    matrix: tuple[int, int, int, int], operation: Image.Transpose
) -> None:
    data = make_video("mp4", 20)
    lying = read(data)[-1].pixels_HW3
    turned = turn(data, matrix)
    row = read(turned)[-1]
    assert np.array_equal(row.pixels_HW3, np.asarray(Image.fromarray(lying).transpose(operation)))
    assert np.array_equal(read(turned, upright=False)[-1].pixels_HW3, lying)


@pytest.mark.parametrize("ending", KINDS)
def test_a_video_that_is_cut_anywhere_gives_its_beginning_and_says_so(ending: str, tmp_path: Path) -> None:
    data = make_streamable(tmp_path) if ending == "mp4" else make_video(ending, 30, noise=True)
    whole = read(data)
    most = 0
    for at in [1, 7, 30, *range(60, len(data), len(data) // 40), len(data) - 1]:
        rows, failure = read_until_damage(data[:at])
        assert failure is not None, at
        assert failure.outcome is Outcome.BAD_SHARD
        most = max(most, len(rows))
        for row, wanted in zip(rows, whole, strict=False):
            assert np.array_equal(row.pixels_HW3, wanted.pixels_HW3)
        assert read_until_damage(data[:at])[1] == failure
    assert len(whole) == 30
    assert most > 20 or ending == "mov"  # whose header comes last


@pytest.mark.parametrize("ending", ["mp4", "mov", "avi"])
def test_what_a_decoder_notices_ends_the_video_before_it_conceals_it(ending: str) -> None:
    data = make_video(ending, 30, noise=True)
    whole, n_told, n_wrong = read(data), 0, 0
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(200, len(data) - 200)] ^= rng.integers(1, 256)
        rows, failure = read_until_damage(bytes(damaged))
        n_told += failure is not None
        if failure is not None:
            n_wrong += any(
                not np.array_equal(row.pixels_HW3, wanted.pixels_HW3) for row, wanted in zip(rows, whole, strict=False)
            )
    assert n_told >= 10  # the rest decodes, to whatever it says
    assert n_wrong <= n_told // 4  # what was wrong before it was noticed


@pytest.mark.parametrize(
    ("data", "outcome", "detail"),
    [
        (b"", Outcome.EMPTY, "no bytes"),
        (b"#EXTM3U\n/etc/passwd\n", Outcome.BAD_SHARD, "begins like no video (MP4, MOV, MKV, WebM or AVI)"),
        (b"\x1a\x45\xdf\xa3" + bytes(500), Outcome.BAD_SHARD, "damaged header of a video"),
        (b"\0\0\0\x08ftyp" + b"x" * 500, Outcome.BAD_SHARD, "damaged header of a video"),
        (b"\0\1\0\0ftyp" + b"x" * 500, Outcome.BAD_SHARD, "the video breaks off within its header"),
        (b"RIFF\0\0\0\0AVI " + bytes(500), Outcome.BAD_SHARD, "damaged header of a video"),
        (make_sound(), Outcome.EMPTY, "the file has no moving pictures"),
        (make_video("mp4", 0), Outcome.EMPTY, "the file has no moving pictures"),
        (make_video("avi", 0), Outcome.EMPTY, "the video has no frames"),
    ],
)
def test_what_gives_no_frame_says_why(data: bytes, outcome: Outcome, detail: str) -> None:
    assert read_until_damage(data) == ([], Failure(outcome, detail))


def test_large_pictures_are_refused_before_they_are_decoded() -> None:
    data = make_video("mp4", 3)
    with pytest.raises(FilmError) as error:
        Film(io.BytesIO(data), max_pixels=WIDTH * HEIGHT - 1, upright=True)
    detail = f"video: {WIDTH} x {HEIGHT}, more than decode.max_pixels, {WIDTH * HEIGHT - 1}"
    assert error.value.failure == Failure(Outcome.TOO_MANY_PIXELS, detail)
    assert len(read(data, max_pixels=WIDTH * HEIGHT)) == 3


def test_a_picture_that_grows_in_mid_video_is_refused() -> None:
    small, large = (make_video("mkv", 5, size=size) for size in ((64, 48), (640, 480)))
    data = splice(small, large)
    assert [row.pixels_HW3.shape[:2] for row in read(data)] == 5 * [(48, 64)] + 5 * [(480, 640)]
    rows, failure = read_until_damage(data, max_pixels=10_000)
    assert {row.pixels_HW3.shape[:2] for row in rows} == {(48, 64)}
    assert failure is not None
    assert failure.outcome in (Outcome.BAD_SHARD, Outcome.TOO_MANY_PIXELS)


def splice(first: bytes, second: bytes) -> bytes:
    """The packets of both in one file with the header of the first, each keyframe with its own parameters."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="avi") as out:
        stream = None
        at = 0
        for data in (first, second):
            with av.open(io.BytesIO(data)) as video:
                if stream is None:
                    stream = out.add_stream_from_template(video.streams.video[0])
                to_annexb = av.BitStreamFilterContext("h264_mp4toannexb", video.streams.video[0])
                for packet in video.demux(video=0):
                    for made in to_annexb.filter(packet) if packet.size else ():
                        made.stream = stream
                        made.pts = made.dts = at
                        made.time_base = Fraction(1, 10)
                        at += 1
                        out.mux(made)
    return file.getvalue()


def test_a_codec_that_is_not_on_the_list_is_not_decoded() -> None:
    rows, failure = read_until_damage(make_video("mp4", 3), codecs={"vp9"})
    assert (rows, failure) == ([], Failure(Outcome.UNSUPPORTED, "video: h264 is not decoded"))


def test_damaged_time_stamps_end_the_video() -> None:
    rows, failure = read_until_damage(make_video("mkv", 3, pts=[0, 10, 10 * 3600 * 2]), 0.01, max_hours=1)
    assert len(rows) == 36
    assert failure == Failure(Outcome.BAD_SHARD, "the video goes on for more than 1 hours")


def test_what_was_cut_out_of_a_longer_video_begins_where_it_can() -> None:
    import av

    data = make_video("mkv", 40, noise=True, g="12", **{"x264-params": "open_gop=1:bframes=3"})
    whole = decode_all(data)
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as video, av.open(file, "w", format="matroska") as out:
        stream = out.add_stream_from_template(video.streams.video[0])
        n_keys = 0
        for packet in video.demux(video=0):
            n_keys += packet.is_keyframe
            if n_keys > 1 and packet.size:
                packet.stream = stream
                out.mux(packet)
    rows, failure = read_until_damage(file.getvalue())
    assert failure is None
    assert len(rows) == 29
    for row, wanted in zip(rows, whole[11:], strict=True):
        assert np.array_equal(row.pixels_HW3, wanted)


@pytest.mark.parametrize("ending", KINDS)
def test_whole_files_are_not_taken_for_cut_ones(ending: str) -> None:
    data = make_video(ending, 5)
    container = sniff_container(data[:64])
    assert container is not None
    assert not is_cut_short(io.BytesIO(data), container)
    assert not is_cut_short(io.BytesIO(data + b"what somebody appended"), container)
    assert is_cut_short(io.BytesIO(data[:-1]), container)
