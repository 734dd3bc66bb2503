"""A video in a process of its own: the same rows, and what it does to the process."""

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.videos import HEIGHT, WIDTH, decode_all, make_streamable, make_video, turn

from zsic.core import projector as projector_module
from zsic.core.errors import IncompleteError
from zsic.core.film import FilmError
from zsic.core.outcome import Failure, Outcome
from zsic.core.preprocess import Geometry, prepare
from zsic.core.projector import BLOCK_BYTES, Projection, Projector
from zsic.core.spec import DecodeSpec

PROJECTOR = Projector(fps=10, max_pixels=10**6, upright=True, timeout_s=20)


def never(index: int) -> bool:
    return False


def project(
    data: bytes, projector: Projector = PROJECTOR, skip: Callable[[int], bool] = never
) -> tuple[list[Projection], Failure | None]:
    rows: list[Projection] = []
    try:
        for row in projector.project(len(data), lambda start, end: data[start:end], skip):
            rows.append(row)
    except FilmError as error:
        return rows, error.failure
    return rows, None


def test_a_row_travels_to_the_bit() -> None:
    data = turn(make_video("mp4", 12, noise=True), (0, 1, -1, 0))
    rows, failure = project(data)
    assert failure is None
    geometry = Geometry(resize=None, resample="bicubic", crop=(WIDTH, HEIGHT))
    for row, frame_HW3 in zip(rows, decode_all(data), strict=True):
        assert row.data is not None
        wanted_HW3 = np.asarray(Image.fromarray(frame_HW3).transpose(Image.Transpose.ROTATE_270))
        for spec in (DecodeSpec(), DecodeSpec(mode="pil")):
            prepared = prepare(row.data, geometry, spec)
            assert (prepared.width, prepared.height) == (HEIGHT, WIDTH)
            assert np.array_equal(prepared.pixels_HW3, wanted_HW3)
    assert sum(row.n_bytes for row in rows) <= len(data)


def test_what_is_skipped_changes_nothing_else() -> None:
    data = make_video("webm", 20, noise=True)
    rows, _ = project(data)
    others, _ = project(data, skip=lambda index: index % 3 != 1)
    assert [row.data for row in others] == [row.data if row.index % 3 == 1 else None for row in rows]
    assert [(row.index, row.key, row.n_bytes) for row in others] == [(row.index, row.key, row.n_bytes) for row in rows]


def test_a_file_is_read_by_ranges_and_not_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    video = make_streamable(tmp_path)
    # Nothing is wanted of what lies between the frames and the end.
    data = video + (4 * BLOCK_BYTES).to_bytes(4, "big") + b"free" + bytes(4 * BLOCK_BYTES - 8)
    asked: list[tuple[int, int]] = []

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        return data[start:end]

    rows = list(PROJECTOR.project(len(data), read, never))
    assert len(rows) == 30
    assert asked == sorted(set(asked))
    assert sum(end - start for start, end in asked) < 2 * BLOCK_BYTES


def test_the_header_tells_how_many_there_will_be() -> None:
    def count(data: bytes) -> int | None:
        return PROJECTOR.count_about(len(data), lambda start, end: data[start:end])

    assert count(make_video("mp4", 25)) == 25
    assert count(b"garbage") is None


class Lost(Exception):
    pass


def test_what_reading_raises_is_raised() -> None:
    def read(start: int, end: int) -> bytes:
        raise Lost

    with pytest.raises(Lost):
        list(PROJECTOR.project(1000, read, never))


HARM = {
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "exit": "os._exit(7)",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "hang": "ctypes.PyDLL(None).sleep(1000)",
    "memory": "bytes(8 * 2**30)",
    "nonsense": 'os.write(number, b\'{"kind": "row"}\' + bytes([10]))',
}


def lay_trap(folder: Path, harm: str, *, once: bool = False) -> None:
    """Let every Python that is started from here do harm at its fifth frame; or only the first of them."""
    folder.mkdir()
    condition = f"not os.path.exists({str(folder / 'done')!r})" if once else "True"
    program = f"""
        import ctypes, os, signal, stat, subprocess
        import zsic.core.film as film
        frames = film.Film.frames
        number = next((n for n in range(3, 100) if os.path.exists(f"/proc/self/fd/{{n}}")
                       and stat.S_ISSOCK(os.fstat(n).st_mode)), None)
        def obey(self, fps):
            for frame in frames(self, fps):
                if frame is not None and frame.index == 4 and {condition}:
                    open({str(folder / "done")!r}, "w").close()
                    {HARM[harm]}
                yield frame
        film.Film.frames = obey
    """
    (folder / "sitecustomize.py").write_text(textwrap.dedent(program))


@pytest.mark.parametrize(
    ("harm", "detail"),
    [
        ("crash", "the decoder was killed by signal 11"),
        ("exit", "the decoder ended with code 7"),
        ("kill", "the decoder was killed by signal 9"),
        ("hang", "the decoder took longer than 2 s"),
        ("memory", "the decoder asked for more memory than 402 MiB"),
        ("nonsense", "the decoder answered nonsense"),
    ],
)
def test_a_video_that_harms_its_process_gives_the_rows_before(
    harm: str, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_trap(tmp_path / "trap", harm)
    monkeypatch.syspath_prepend(str(tmp_path / "trap"))
    started = time.monotonic()
    rows, failure = project(make_video("mp4", 10), Projector(fps=10, max_pixels=10**6, upright=True, timeout_s=2))
    assert failure == Failure(Outcome.DECODER_DIED, detail)
    assert [row.index for row in rows] == [0, 1, 2, 3]
    assert all(row.data for row in rows)
    assert time.monotonic() - started < 15


def test_a_process_that_was_killed_for_another_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_video("mp4", 10, noise=True)
    whole, _ = project(data)
    lay_trap(tmp_path / "trap", "kill", once=True)
    monkeypatch.syspath_prepend(str(tmp_path / "trap"))
    rows, failure = project(data)
    assert failure is None
    assert rows == whole


def test_frames_that_are_not_wanted_count_as_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    program = """
        import time
        import zsic.core.film as film
        frames = film.Film.frames
        def slowly(self, fps):
            for frame in frames(self, fps):
                time.sleep(0.1)
                yield frame
        film.Film.frames = slowly
    """
    (folder / "sitecustomize.py").write_text(textwrap.dedent(program))
    monkeypatch.syspath_prepend(str(folder))
    slow = Projector(fps=0.1, max_pixels=10**6, upright=True, timeout_s=1)
    rows, failure = project(make_video("mp4", 30), slow)
    assert (len(rows), failure) == (1, None)


def test_the_process_is_gone_when_nobody_wants_more() -> None:
    data = make_video("mp4", 30)
    rows = PROJECTOR.project(len(data), lambda start, end: data[start:end], never)
    next(rows)
    before = len(children())
    rows.close()
    assert len(children()) == before - 1


def children() -> list[Path]:
    """Processes that show a video and are not waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"zsic.core.projector" in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


def test_a_python_that_starts_no_child_is_no_fault_of_a_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IncompleteError, match="no process to decode in"):
        project(make_video("mp4", 1))


def test_few_blocks_are_kept() -> None:
    asked: list[tuple[int, int]] = []

    class Parent:
        def read(self, start: int, end: int) -> bytes:
            asked.append((start, end))
            return bytes(end - start)

    n_blocks = projector_module._N_BLOCKS + 1
    size = n_blocks * BLOCK_BYTES - 5
    file = projector_module._File(Parent(), size)  # type: ignore[arg-type]
    n_read = 0
    while data := file.read(3 * 2**20):
        n_read += len(data)
    assert n_read == size
    assert len(asked) == n_blocks
    assert asked[-1] == (size - BLOCK_BYTES + 5, size)
    file.seek(0)
    assert len(file.read(10)) == 10
    assert len(asked) == n_blocks + 1
    assert file.seek(-10, 2) == size - 10
    assert len(file.read()) == 10
    assert len(asked) == n_blocks + 1
