"""A killed run's folder goes with the next run; a living one's stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from zsic.pipeline.scratch import scratch

HOLD = """
import sys, time
from pathlib import Path
from zsic.pipeline.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "session").mkdir()
    print(folder, flush=True)
    time.sleep(600)
"""


def hold(root: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_run_left_goes_and_what_lives_stays(tmp_path: Path) -> None:
    (tmp_path / "zsic-submit-1").mkdir()
    killed, left = hold(tmp_path)
    living, held = hold(tmp_path)
    try:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert (left / "session").is_dir()
        with scratch(tmp_path) as own:
            assert {path.name for path in tmp_path.iterdir()} == {"zsic-submit-1", held.name, own.name}
            assert (held / "session").is_dir()
        assert not own.exists()
    finally:
        living.kill()
        living.wait()


def test_one_that_is_just_being_made_stays(tmp_path: Path) -> None:
    young = tmp_path / "zsic-young"
    young.mkdir()
    (young / "lock").touch()
    with scratch(tmp_path):
        assert young.is_dir()
