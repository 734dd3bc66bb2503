"""Ctrl-C and what comes after it, as a user does it: a process of its own, with a Ray of its own."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.runs import LABELS, read_table, write_shard

pytestmark = pytest.mark.ray


def start(folder: Path, n_cpus: int) -> tuple[subprocess.Popen[str], list[str], Path]:
    """Start a job of 60 shards of 50 images, and wait for its first part."""
    first = write_shard(folder / "s-00.tar", range(50))
    for shard in range(1, 60):
        shutil.copy(first, folder / f"s-{shard:02d}.tar")
    out = folder / "out"
    command = [sys.executable, "-m", "zsic", "classify", f"{folder}/*.tar", "--labels", ",".join(LABELS)]
    command += ["--output", str(out), "--rows-per-part", "100", "--block-rows", "50", "--num-cpus", str(n_cpus)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs deaf to Ctrl-C; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not any(out.glob("*.parquet")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    return process, command, out


def rays() -> set[Path]:
    """Folders of Rays that zsic started."""
    return {path for path in Path("/tmp").glob("zsic-*") if not path.name.startswith("zsic-export-")}


@pytest.mark.parametrize(("number", "n_cpus"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_an_interrupted_run_ends_with_3_and_cleans_up(tmp_path: Path, number: signal.Signals, n_cpus: int) -> None:
    before = rays()
    process, command, out = start(tmp_path, n_cpus)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "the same command resumes" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert rays() <= before
    n_left = read_table(out, "id").num_rows
    assert 100 <= n_left < 3000
    verified = zsic("verify", out)
    assert verified.returncode == 1
    assert "a run is open" in verified.stderr
    (record,) = [json.loads(path.read_text()) for path in (out / "_zsic" / "runs").iterdir()]
    assert (record["state"], record["reason"]) == ("stopped", stderr.splitlines()[-1].removeprefix("zsic: "))
    if number == signal.SIGTERM:
        return

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert f"resumed: {n_left:,} rows were there before" in done.stdout
    assert "Traceback" not in done.stderr
    assert "core_worker" not in done.stderr
    ids = read_table(out, "id")["id"].to_pylist()
    assert ids == [shard << 24 | index for shard in range(60) for index in range(50)]
    assert zsic("verify", out).returncode == 0

    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 0
    assert "Nothing to do" in again.stdout
    assert "starting Ray" not in again.stderr


def zsic(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zsic", *map(str, arguments)], capture_output=True, text=True, check=False
    )
