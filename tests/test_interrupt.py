"""A run as a user starts it, in a process of its own: interrupted, resumed, verified and repeated."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from support import traps
from support.runs import LABELS, draw, read_table, write_shard

from zsic.cli import run_command

CRASHES, HANGS = 2, 5
TIMEOUT_S = 5
N_ROWS = 8 + 8 + 2 * 16


def write_lake(folder: Path) -> None:
    """Write a shard of pictures, one with two that are deadly to their decoder, and two of pictures that are slow."""
    deadly = {CRASHES: traps.CRASH, HANGS: traps.HANG}
    for shard, cues in enumerate(
        ({}, deadly, dict.fromkeys(range(16), traps.SLOW), dict.fromkeys(range(16), traps.SLOW))
    ):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(max(8, len(cues))):
                data = draw(number) + cues.get(number, b"")
                entry = tarfile.TarInfo(f"{number:03d}.img")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def start(folder: Path, engine: str, slow_s: float) -> subprocess.Popen[str]:
    """Start the job, with pictures that take so many seconds."""
    path = os.pathsep.join([str(traps.lay(folder, slow_s=slow_s)), *sys.path])
    return subprocess.Popen(
        command(folder, engine),
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs deaf to Ctrl-C; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )


def command(folder: Path, engine: str) -> list[str]:
    flags = ["--rows-per-part", "8", "--block-rows", "8", "--batch-size", "8", "--num-cpus", "2", "--engine", engine]
    flags += ["--decode-mode", "pil", "--decode-timeout-s", str(TIMEOUT_S)]
    source = [f"{folder}/*.tar", "--labels", ",".join(LABELS), "--output", f"{folder}/out"]
    return [sys.executable, "-m", "zsic", "classify", *source, *flags]


def kill_an_encoder(process: subprocess.Popen[str]) -> None:
    """Kill the encoder of a run on Ray as soon as there is one."""
    from support.herd import WORKERS, psutil

    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, IndexError):
                if child.cmdline()[0].startswith(WORKERS["encoder"]):
                    child.kill()
                    return
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        pytest.param("ray", signal.SIGINT, marks=pytest.mark.ray),
        pytest.param("ray", signal.SIGTERM, marks=(pytest.mark.ray, pytest.mark.variant)),
        ("local", signal.SIGINT),
        ("local", signal.SIGTERM),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_interrupted_run_is_resumed_and_each_image_has_one_row(
    engine: str, number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_lake(tmp_path)
    out = tmp_path / "out"
    before = rays()
    process = start(tmp_path, engine, slow_s=2)
    wait_for_a_part(process, out)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "the same command resumes" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert rays() <= before
    n_left = read_table(out, "id").num_rows
    assert 8 <= n_left < N_ROWS
    assert run_command(["verify", str(out)]) == 1
    assert "a run is open" in capfd.readouterr().err
    (record,) = [json.loads(path.read_text()) for path in (out / "_zsic" / "runs").iterdir()]
    assert (record["state"], record["reason"]) == ("stopped", stderr.splitlines()[-1].removeprefix("zsic: "))
    if number == signal.SIGTERM:
        return

    process = start(tmp_path, engine, slow_s=0)
    if engine == "ray":
        kill_an_encoder(process)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert f"resumed: {n_left:,} rows were there before" in stdout
    assert "decoder_died 2" in stdout
    assert "Traceback" not in stderr
    assert "core_worker" not in stderr
    assert rays() <= before

    rows = {(Path(row["uri"]).name, row["key"]): row for row in read_table(out).to_pylist()}
    ids = [row["id"] for row in rows.values()]
    assert ids == [shard << 24 | index for shard, n in enumerate((8, 8, 16, 16)) for index in range(n)]
    assert {key: (row["outcome"], row["detail"]) for key, row in rows.items() if row["outcome"] != "ok"} == {
        ("1.tar", f"{CRASHES:03d}.img"): ("decoder_died", "the decoder was killed by signal 11"),
        ("1.tar", f"{HANGS:03d}.img"): ("decoder_died", f"the decoder took longer than {TIMEOUT_S} s"),
    }
    # The shards hold the same pictures, so where several have an answer it is the same.
    for (_, key), row in rows.items():
        if row["outcome"] == "ok":
            same = rows["2.tar", key]
            assert (row["label"], row["score"]) == (same["label"], pytest.approx(same["score"], abs=1e-5))
    assert run_command(["verify", str(out)]) == 0
    assert run_command(command(tmp_path, engine)[3:]) == 0
    said = capfd.readouterr()
    assert "Nothing to do" in said.out
    assert "starting Ray" not in said.err


@pytest.mark.ray
@pytest.mark.variant
@pytest.mark.parametrize(("number", "n_cpus"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_longer_run_is_interrupted_and_resumed(tmp_path: Path, number: signal.Signals, n_cpus: int) -> None:
    """Of 60 shards of 50 images."""
    first = write_shard(tmp_path / "s-00.tar", range(50))
    for shard in range(1, 60):
        shutil.copy(first, tmp_path / f"s-{shard:02d}.tar")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "zsic", "classify", f"{tmp_path}/*.tar", "--labels", ",".join(LABELS)]
    command += ["--output", str(out), "--rows-per-part", "100", "--block-rows", "50", "--num-cpus", str(n_cpus)]
    command += ["--engine", "ray"]
    before = rays()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    wait_for_a_part(process, out)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert stdout == ""
    assert rays() <= before
    n_left = read_table(out, "id").num_rows
    assert 100 <= n_left < 3000

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert f"resumed: {n_left:,} rows were there before" in done.stdout
    assert "core_worker" not in done.stderr
    ids = read_table(out, "id")["id"].to_pylist()
    assert ids == [shard << 24 | index for shard in range(60) for index in range(50)]
    assert run_command(["verify", str(out)]) == 0


def wait_for_a_part(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(out.glob("*.parquet")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)


def rays() -> set[Path]:
    """The folders of Rays that zsic started."""
    return {lock.parent for lock in Path("/tmp").glob("zsic-*/lock")}
