"""The engine without Ray: what is killed, hangs or fails there, and what it leaves behind."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from support.crashpoints import DiskWatch
from support.herd import psutil
from support.runs import LABELS, assert_same_rows, draw, read_table, write_shard

from zsic.core.errors import IncompleteError, SpecError
from zsic.core.spec import ExecutionSpec, JobSpec, StoreSpec, change_spec, make_spec
from zsic.models.encoder import ImageEncoder
from zsic.pipeline.execute import choose_engine, explain_stop, follow
from zsic.pipeline.guard import Guard
from zsic.pipeline.job import Job, prepare
from zsic.pipeline.local_engine import PartWriter, make_ahead
from zsic.pipeline.reporter import LocalReporter
from zsic.pipeline.run import run
from zsic.pipeline.watch import Watch
from zsic.storage.lease import describe_holder, take_lease
from zsic.storage.pending import Pending
from zsic.storage.store import open_store
from zsic.storage.verify import find_differences

CRASH_EVERY = int(os.environ.get("ZSIC_TEST_CRASH_EVERY", "9"))


def spec_of(source: object, out: Path, **fields: Any) -> JobSpec:
    execution = {"engine": "local", "num_cpus": 1, **fields.pop("execution", {})}
    return make_spec({"source": source, "labels": LABELS, "output": str(out), "execution": execution, **fields})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(draw(number))
    (folder / "bad.png").write_bytes(b"no picture")
    write_shard(folder / "s.tar", range(10, 14))
    return folder


@pytest.fixture(scope="module")
def disk() -> DiskWatch:
    """Only one in a process, for an audit hook stays."""
    return DiskWatch()


def in_a_fork(act: Callable[[], object]) -> int:
    """Do something in a copy of this process; its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("every", [CRASH_EVERY, pytest.param(1, marks=pytest.mark.variant)])
def test_a_run_killed_at_any_file_operation_is_resumed_exactly(
    photos: Path, tmp_path: Path, disk: DiskWatch, every: int
) -> None:
    expected = tmp_path / "expected"
    small = {"output": {"uri": str(expected), "rows_per_part": 3}, "execution": {"block_rows": 2}}
    run(spec_of(str(photos), expected, **small))
    counted = tmp_path / "counted"
    spec = change_spec(spec_of(str(photos), expected, **small), {"output": {"uri": str(counted)}})
    disk.watch(counted)
    run(spec)
    disk.stop()
    n_killed = 0
    for at in range(1, disk.n_operations + 1, every):
        out = tmp_path / f"killed-{at}"
        spec = change_spec(spec, {"output": {"uri": str(out)}})

        def killed(spec: JobSpec = spec, out: Path = out, at: int = at) -> None:
            disk.watch(out, at, "kill")
            run(spec)

        code = in_a_fork(killed)
        assert code in (-signal.SIGKILL, 0)
        n_killed += code != 0
        run(spec)
        assert_same_rows(read_table(out), read_table(expected))
        assert list(find_differences(open_store(str(out), spec.store))) == []
    assert n_killed >= (disk.n_operations // every) * 0.8


def test_nothing_stays_behind(photos: Path, tmp_path: Path) -> None:
    before, threads = set(psutil.Process().children(recursive=True)), torch.get_num_threads()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    summary = run(spec_of(str(photos), tmp_path / "out", execution={"encoder_threads": 1}))
    assert (summary.engine, summary.outcomes) == ("local", {"not_an_image": 1, "ok": 7})
    assert set(psutil.Process().children(recursive=True)) <= before
    assert torch.get_num_threads() == threads
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_stage_that_fails_leaves_a_run_that_can_be_resumed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(str(photos), tmp_path / "out", output={"uri": str(tmp_path / "out"), "rows_per_part": 2})
    spec = change_spec(spec, {"execution": {"block_rows": 2}})
    before = set(psutil.Process().children(recursive=True))
    with monkeypatch.context() as patched:
        encode, calls = ImageEncoder.encode, iter(range(100))

        def fail(encoder: ImageEncoder, pixels_BHW3: Any) -> torch.Tensor:
            if next(calls) == 2:
                raise ValueError("the tower fell")
            return encode(encoder, pixels_BHW3)

        patched.setattr(ImageEncoder, "encode", fail)
        with pytest.raises(IncompleteError, match="the pipeline stopped: ValueError: the tower fell"):
            run(spec)
    assert set(psutil.Process().children(recursive=True)) <= before
    assert 0 < read_table(tmp_path / "out", "id").num_rows < 8
    assert run(spec).resumed


def test_two_forms_of_ctrl_c_end_it_resumable(photos: Path, tmp_path: Path) -> None:
    class Impatient(Watch):
        def __init__(self, number: signal.Signals) -> None:
            self._number = number

        def on_start(self, pending: Pending) -> None:
            os.kill(os.getpid(), self._number)

    for number in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / number.name
        with pytest.raises(IncompleteError, match=r"interrupted; what is in .* stays"):
            run(spec_of(str(photos), out), Impatient(number))
        assert run(spec_of(str(photos), out)).n_rows == 8


def test_a_stall_is_stopped(tmp_path: Path) -> None:
    lease = take_lease(open_store(str(tmp_path), StoreSpec()), describe_holder("t"))
    with (
        pytest.raises(IncompleteError, match=r"no image was finished for 0\.5 s"),
        Guard(lease, ExecutionSpec()) as guard,
        follow(LocalReporter(), guard, Watch(), stall_timeout_s=0.5),
    ):
        time.sleep(20)


class TestBlocksAhead:
    def test_come_in_order(self) -> None:
        blocks = [pa.table({"x": [number]}) for number in range(9)]
        assert list(make_ahead(iter(blocks))) == blocks

    def test_errors_are_raised_where_blocks_are_waited_for(self) -> None:
        def broken() -> Iterator[pa.Table]:
            yield pa.table({"x": [1]})
            raise ValueError("broken")

        ahead = make_ahead(broken())
        next(ahead)
        with pytest.raises(ValueError, match="broken"):
            next(ahead)

    def test_no_more_are_made_than_asked_for(self) -> None:
        made: list[int] = []

        def counting() -> Iterator[pa.Table]:
            for number in range(100):
                made.append(number)
                yield pa.table({"x": [number]})

        ahead = make_ahead(counting(), 2)
        next(ahead)
        time.sleep(0.5)
        assert len(made) <= 4
        ahead.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rows_per_part", "limits", "expected"),
    [(5, {}, [6, 3]), (None, {}, [9]), (None, {"part_s": 0.0}, [3, 3, 3]), (None, {"max_rows": 5}, [6, 3])],
)
def test_parts_hold_the_rows_asked_for_or_a_minutes_work(
    photos: Path, tmp_path: Path, rows_per_part: int | None, limits: dict[str, Any], expected: list[int]
) -> None:
    written: list[int] = []

    class Output:
        def write_part(self, plan: object, table: pa.Table, metadata: object, task: str) -> None:
            written.append(table.num_rows)

    job = prepare(spec_of(str(photos), tmp_path / "out", output={"uri": "x", "rows_per_part": rows_per_part}))
    job = Job(**{**vars(job), "output": Output()})
    writer = PartWriter(job, None, {}, LocalReporter(), **limits)  # type: ignore[arg-type]
    for _ in range(3):
        writer.add(pa.table({"id": [1, 2, 3]}))
    writer.flush()
    assert written == expected


@pytest.mark.parametrize(
    ("execution", "n_images", "expected"),
    [
        ({"num_cpus": 2}, 500, "local"),
        ({"num_cpus": 2}, 5_000_000, "ray"),
        ({"engine": "ray"}, 1, "ray"),
        ({"engine": "local"}, 5_000_000, "local"),
        ({"address": "auto"}, 1, "ray"),
        ({"encoders": 2}, 1, "ray"),
        ({"decode_tasks": 1}, 1, "ray"),
        ({"num_gpus": 2}, 1, "ray"),
    ],
)
def test_the_engine_follows_from_the_spec_and_the_amount_of_work(
    photos: Path, tmp_path: Path, execution: dict[str, Any], n_images: int, expected: str
) -> None:
    job = prepare(spec_of(str(photos), tmp_path / "out", execution={"engine": "auto", "num_cpus": None, **execution}))
    assert choose_engine(job, Pending(n_images=n_images, exact=True, n_bytes=n_images)) == expected


@pytest.mark.parametrize(
    "fields", [{"address": "auto"}, {"encoders": 2}, {"max_encoders": 3}, {"decode_cpus": 1}, {"num_gpus": 2}]
)
def test_fields_about_a_cluster_are_refused_with_the_local_engine(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=rf"execution\.engine is local, and execution\.{next(iter(fields))}"):
        spec_of("x", tmp_path / "out", execution=fields)


def test_an_explanation_keeps_the_first_line() -> None:
    assert "ValueError: first\n" in str(explain_stop(ValueError("first\nsecond")))
