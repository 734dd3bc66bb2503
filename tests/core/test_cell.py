"""Decoding in a process of its own: what kills it, hangs it or fills it becomes a row, and the next is decoded."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import images, traps

from zsic.core.cell import Cell, Cells
from zsic.core.child import fork_child
from zsic.core.decode import DecodeError
from zsic.core.errors import IncompleteError
from zsic.core.outcome import Outcome
from zsic.core.preprocess import Geometry, Prepared, prepare
from zsic.core.spec import DecodeSpec

# Pillow warns of much that is odd in metadata.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

CLIP = Geometry(32, "bicubic", (32, 32))
SPEC = DecodeSpec(mode="pil")  # the child is up in a third of a second, without torch
GOOD = images.encode(images.picture(), "JPEG")


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Children, and they alone, decode as the image tells them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(traps.lay(tmp_path_factory.mktemp("traps"))))
        yield


@pytest.fixture(scope="module")
def cell(trapped: None) -> Iterator[Cell]:
    """A cell for all tests: what one leaves behind is a child that decodes, or none."""
    with Cell(CLIP, SPEC, 2) as cell:
        yield cell


def fate(prepare_it: Callable[[bytes], Prepared], data: bytes) -> tuple[Outcome, str | bytes, int | None, int | None]:
    """What becomes of an image: outcome, detail or pixels, width and height."""
    try:
        prepared = prepare_it(data)
    except DecodeError as error:
        return error.failure.outcome, error.failure.detail, error.width, error.height
    return Outcome.OK, prepared.pixels_HW3.tobytes(), prepared.width, prepared.height


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def ends(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_gone(pid)


@pytest.mark.parametrize("mode", ["pil", "exact"])
def test_every_file_is_what_it_is_in_this_process(mode: str) -> None:
    spec = DecodeSpec(mode=mode)
    with Cell(CLIP, spec, 60) as cell:
        for name, case in images.hostile_images().items():
            here, there = (fate(each, case.data) for each in (lambda data: prepare(data, CLIP, spec), cell.prepare))
            assert there == here, name
        assert cell.n_started == 1


def test_pixels_go_where_they_are_wanted() -> None:
    out_HW3 = np.ones((32, 32, 3), np.uint8)
    with Cell(CLIP, SPEC, 60) as cell:
        assert fate(lambda data: cell.prepare(data, out_HW3), b"")[0] is Outcome.EMPTY
        assert (out_HW3 == 1).all()
        assert cell.prepare(GOOD, out_HW3).pixels_HW3 is out_HW3
    assert np.array_equal(out_HW3, prepare(GOOD, CLIP, SPEC).pixels_HW3)


def test_a_large_file_passes() -> None:
    data = GOOD + bytes(2**25)
    with Cell(CLIP, SPEC, 60) as cell:
        assert np.array_equal(cell.prepare(data).pixels_HW3, prepare(GOOD, CLIP, SPEC).pixels_HW3)


@pytest.mark.parametrize(
    ("trap", "detail"),
    [
        (traps.CRASH, "the decoder was killed by signal 11"),
        (traps.ABORT, "the decoder was killed by signal 6"),
        (traps.KILL, "the decoder was killed by signal 9"),
        (traps.EXIT, "the decoder ended with code 7"),
        (traps.HANG, "the decoder took longer than 2 s"),
        (traps.SPIN, "the decoder took longer than 2 s"),
        (traps.NONSENSE, "the decoder answered nonsense"),
    ],
)
def test_what_ends_the_decoder_is_a_row_and_the_next_is_decoded(cell: Cell, trap: bytes, detail: str) -> None:
    assert fate(cell.prepare, GOOD)[0] is Outcome.OK
    first = cell.pid
    assert first is not None
    began = time.monotonic()
    assert fate(cell.prepare, GOOD + trap) == (Outcome.DECODER_DIED, detail, None, None)
    assert time.monotonic() - began < 10
    assert is_gone(first)
    assert fate(cell.prepare, GOOD)[0] is Outcome.OK
    assert cell.pid != first


def test_what_fills_the_memory_is_a_row_and_the_child_lives_on(cell: Cell) -> None:
    cell.prepare(GOOD)
    n_started = cell.n_started
    outcome, detail, *_ = fate(cell.prepare, GOOD + traps.MEMORY)
    assert (outcome, detail) == (Outcome.DECODER_DIED, f"the decoder asked for more memory than {traps.LIMIT_MIB} MiB")
    cell.prepare(GOOD)
    assert cell.n_started == n_started


def test_a_child_that_dies_between_images_is_nobodys_fault(cell: Cell) -> None:
    for _ in range(2):
        cell.prepare(GOOD)
        assert cell.pid is not None
        os.kill(cell.pid, signal.SIGKILL)
        assert ends(cell.pid, 5)
    cell.prepare(GOOD)


def test_an_image_is_tried_again_when_its_child_is_killed_from_outside(cell: Cell) -> None:
    cell.prepare(GOOD)
    pid = cell.pid
    assert pid is not None
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(fate, cell.prepare, GOOD + traps.SLOW)
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        assert under_way.result()[0] is Outcome.OK


def test_a_child_has_no_more_of_its_parent_than_it_needs(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    cell.close()
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        cell.prepare(GOOD)
        process = Path(f"/proc/{cell.pid}")
        assert "secret" not in (process / "environ").read_text()
        files = {fd.name: os.readlink(fd) for fd in (process / "fd").iterdir()}
    assert [files.pop(number) for number in "012"] == [os.devnull] * 3
    assert {target.split(":")[0] for target in files.values()} == {"socket"}
    assert os.getsid(cell.pid or 0) == cell.pid
    assert "Max core file size        0                    0" in (process / "limits").read_text()


@pytest.mark.parametrize(("trap", "within_s"), [(b"", 10), (traps.HANG, 15)])
def test_a_child_ends_with_its_parent(trapped: None, tmp_path: Path, trap: bytes, within_s: float) -> None:
    (tmp_path / "image").write_bytes(GOOD + trap)
    program = f"""
        import sys, threading, time
        from pathlib import Path
        sys.path[:0] = {sys.path!r}
        from zsic.core.cell import Cell
        from zsic.core.preprocess import Geometry
        from zsic.core.spec import DecodeSpec

        cell = Cell(Geometry(32, "bicubic", (32, 32)), DecodeSpec(mode="pil"), 1)
        cell.prepare({GOOD!r})
        print(cell.pid, flush=True)
        cell.prepare(Path({str(tmp_path / "image")!r}).read_bytes())
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.communicate()
    assert ends(pid, within_s)


def test_many_threads_share_their_cells(trapped: None) -> None:
    with Cells(2, CLIP, SPEC, 30) as cells, ThreadPoolExecutor(2) as pool:
        files = [GOOD, GOOD + traps.CRASH, b"", GOOD] * 2
        fates = [each[0] for each in pool.map(lambda data: fate(cells.prepare, data), files)]
    assert fates == [Outcome.OK, Outcome.DECODER_DIED, Outcome.EMPTY, Outcome.OK] * 2


def test_cells_are_gone_when_they_are_closed() -> None:
    with Cell(CLIP, SPEC, 30) as cell:
        cell.prepare(GOOD)
        pid = cell.pid
    assert pid is not None
    assert is_gone(pid)
    assert cell.pid is None


def test_a_python_that_starts_no_child_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Cell(CLIP, SPEC, 30) as cell, pytest.raises(IncompleteError, match="no process to decode in"):
        cell.prepare(GOOD)


class TestForked:
    """Children that are copies of this process, in which torch is imported already."""

    @pytest.fixture
    def cell(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
        from zsic.core import preprocess

        # What is patched here is undone afterwards; the forked children keep it.
        monkeypatch.setattr(preprocess, "inspect", traps.make_obedient(preprocess.inspect))
        with Cell(CLIP, DecodeSpec(mode="exact"), 2, fork=True) as cell:
            yield cell

    def test_every_file_is_what_it_is_in_this_process(self) -> None:
        spec = DecodeSpec(mode="exact")
        with Cell(CLIP, spec, 60, fork=True) as cell:
            for name, case in images.hostile_images().items():
                here, there = (fate(each, case.data) for each in (lambda data: prepare(data, CLIP, spec), cell.prepare))
                assert there == here, name
            assert cell.n_started == 1

    @pytest.mark.parametrize(
        ("trap", "detail"),
        [
            (traps.CRASH, "the decoder was killed by signal 11"),
            (traps.KILL, "the decoder was killed by signal 9"),
            (traps.EXIT, "the decoder ended with code 7"),
            (traps.HANG, "the decoder took longer than 2 s"),
            (traps.NONSENSE, "the decoder answered nonsense"),
            (traps.MEMORY, f"the decoder asked for more memory than {traps.LIMIT_MIB} MiB"),
        ],
    )
    def test_a_deadly_image_is_a_row_and_the_next_is_decoded(self, cell: Cell, trap: bytes, detail: str) -> None:
        assert fate(cell.prepare, GOOD)[0] is Outcome.OK
        assert fate(cell.prepare, GOOD + trap) == (Outcome.DECODER_DIED, detail, None, None)
        assert fate(cell.prepare, GOOD)[0] is Outcome.OK
        assert cell._fork, "it was forked, not spawned"

    def test_a_child_starts_in_a_fraction_of_a_second_beside_busy_threads(self, cell: Cell) -> None:
        import torch

        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                torch.rand(200, 200) @ torch.rand(200, 200)

        with ThreadPoolExecutor(2) as pool:
            busy = [pool.submit(work) for _ in range(2)]
            try:
                for _ in range(10):
                    cell.start()
                    assert fate(cell.prepare, GOOD)[0] is Outcome.OK
                    cell.close()
            finally:
                stop.set()
            for each in busy:
                each.result()
        assert cell._fork
        assert cell.n_started == 10

    def test_a_child_has_no_file_terminal_or_handler_of_its_parent(self, cell: Cell, tmp_path: Path) -> None:
        with (tmp_path / "open").open("w"):
            cell.prepare(GOOD)
            process = Path(f"/proc/{cell.pid}")
            files = {fd.name: os.readlink(fd) for fd in (process / "fd").iterdir()}
        assert [files.pop(number) for number in "012"] == [os.devnull] * 3
        assert {target.split(":")[0] for target in files.values()} == {"socket"}
        assert os.getsid(cell.pid or 0) == cell.pid
        os.kill(cell.pid or 0, signal.SIGTERM)
        assert ends(cell.pid or 0, 5)

    def test_a_child_that_cannot_be_forked_is_spawned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zsic.core.cell.fork_child", lambda live: exec("raise OSError('no memory')"))
        with Cell(CLIP, SPEC, 60, fork=True) as cell:
            assert fate(cell.prepare, GOOD)[0] is Outcome.OK

    def test_a_fork_that_is_not_ready_in_time_is_given_up(self) -> None:
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            fork_child(lambda connection: time.sleep(60), timeout_s=0.3)
        assert time.monotonic() - began < 5
        with pytest.raises(ConnectionError, match="ended before it was ready"):
            fork_child(lambda connection: os._exit(1))

    def test_a_child_ends_with_its_parent(self) -> None:
        reader, writer = os.pipe()
        parent = os.fork()
        if parent == 0:
            cell = Cell(CLIP, SPEC, 60, fork=True)
            cell.prepare(GOOD)
            os.write(writer, str(cell.pid).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(parent, 0)
        assert ends(int(os.read(reader, 20)), 5)
        os.close(reader)
        os.close(writer)
