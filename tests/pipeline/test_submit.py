"""Submitting: to a double of a head's dashboard, and as a user does it to a head that wants a token."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.dashboard import Dashboard
from support.head import Head
from support.runs import LABELS, assert_same_rows, read_table, write_shard

from zsic.cli import run_command
from zsic.core.errors import CapacityError, SpecError
from zsic.core.spec import JobSpec, make_spec
from zsic.pipeline.run import run
from zsic.pipeline.submit import Cluster, _Lines

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with Head() as head:
        yield head


def zsic(head: Head, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of a user who has the token; an address in the environment must not matter."""
    return subprocess.run(
        [sys.executable, "-m", "zsic", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **head.environment, "RAY_ADDRESS": "127.0.0.1:1", **environment},
        timeout=240,
    )


def write_spec(folder: Path, source: Path, output: Path, labels: list[str] = LABELS) -> Path:
    (folder / "labels.txt").write_text("\n".join(labels))
    (folder / ".gitignore").write_text("labels.txt\n*.yaml\n")
    spec = folder / "spec.yaml"
    spec.write_text(f"source: {source}/*.tar\nlabels: labels.txt\noutput: {output}\nexecution: {{block_rows: 16}}\n")
    return spec


@pytest.mark.ray
def test_jobs_of_one_output_are_submitted_followed_and_stopped(
    cluster_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shard(tmp_path / "s.tar", range(40))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # the address that is given is the one that matters
    spec = write_spec(tmp_path, tmp_path, tmp_path / "out")
    (tmp_path / "dashboard").mkdir()
    with Dashboard(tmp_path / "dashboard", cluster_address) as dashboard:

        def submit(*flags: str) -> tuple[int, str, str]:
            code = run_command(["submit", str(spec), "--address", dashboard.address, *flags])
            return code, *capfd.readouterr()

        code, _, err = submit("--stop")
        assert (code, "knows no job of" in err) == (2, True)
        code, out, err = submit("--no-wait")
        assert code == 0, err
        id = out.strip()
        assert id.endswith("-1")
        code, _, err = submit()
        assert (code, err.startswith(f"zsic: {id} works on {tmp_path}/out already")) == (3, True)
        code, out, _ = submit("--stop")
        assert (code, out.startswith(f"{id} stopped")) == (0, True)
        code, _, err = submit("--follow")
        assert (code, f"{id} was stopped" in err) == (3, True)
        assert submit("--stop")[1] == f"{id} had ended before\n"

        # Ctrl-C ends the showing, not the job.
        dashboard.followed.clear()
        interrupter = threading.Thread(
            target=lambda: dashboard.followed.wait(60) and os.kill(os.getpid(), signal.SIGINT)
        )
        interrupter.start()
        code, _, err = submit()
        interrupter.join()
        assert (code, f"submitted {id[:-1]}2" in err, "--follow" in err) == (3, True, True)
        code, out, err = submit("--follow")
        assert code == 0, out + err
        assert "classifying" in out, "the progress is shown"
        assert "40 rows in" in out

        # The job's own exit code comes back, and the log of the latest job of this output, not of the one before.
        write_spec(tmp_path, tmp_path, tmp_path / "out", ["twice", "twice"])
        code, out, err = submit()
        assert (code, f"submitted {id[:-1]}3" in err) == (2, True)
        assert "'twice'" in out
        assert "40 rows in" not in out

    fields = {"source": f"{tmp_path}/*.tar", "labels": LABELS, "output": f"{tmp_path}/run"}
    run(make_spec({**fields, "execution": {"engine": "local", "block_rows": 16}}))
    assert_same_rows(read_table(tmp_path / "out"), read_table(tmp_path / "run"))


def test_a_head_that_wants_a_token(tmp_path: Path) -> None:
    with Dashboard(tmp_path, "", token="secret") as dashboard, pytest.raises(CapacityError, match="wants its token"):
        Cluster(dashboard.address)


@pytest.mark.ray
@pytest.mark.variant
def test_a_spec_runs_the_same_submitted_by_either_way(
    head: Head, ray_spec_for: Callable[..., JobSpec], tmp_path: Path
) -> None:
    for shard in range(3):
        write_shard(tmp_path / f"s-{shard}.tar", range(shard * 40, shard * 40 + 40))
    spec = write_spec(tmp_path, tmp_path, tmp_path / "submitted")
    refused = zsic(head, "submit", spec, "--address", head.address, cwd=tmp_path, RAY_AUTH_TOKEN="0" * 32)
    assert (refused.returncode, "wants its token" in refused.stderr) == (2, True), refused.stderr

    done = zsic(head, "submit", spec, "--address", head.address, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "120 rows in" in done.stdout
    assert "classifying" in done.stdout, "the progress is shown"
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["submitted"]

    by_ray = write_spec(tmp_path, tmp_path, tmp_path / "by-ray").read_text()
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "spec.yaml").write_text(by_ray.replace("labels.txt", json.dumps(LABELS)))
    (tmp_path / "job" / "classify.py").write_text((JOBS / "classify.py").read_text())
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", f"--address={head.address}"]
    command += [f"--working-dir={tmp_path / 'job'}", "--", "python", "classify.py", "spec.yaml"]
    ray = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **head.environment}, timeout=240)
    assert ray.returncode == 0, ray.stdout + ray.stderr

    run(ray_spec_for(f"{tmp_path}/*.tar", tmp_path / "run", execution={"block_rows": 16}))
    expected = read_table(tmp_path / "run")
    assert expected.num_rows == 120
    assert_same_rows(read_table(tmp_path / "submitted"), expected)
    assert_same_rows(read_table(tmp_path / "by-ray"), expected)

    # The job's own exit code comes back, and the log of the latest job of this output, not of the one before.
    other = write_spec(tmp_path, tmp_path, tmp_path / "submitted", [*LABELS, "grey star"])
    done = zsic(head, "submit", other, "--address", head.address, cwd=tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "120 rows in" not in done.stdout
    done = zsic(head, "submit", other, "--address", head.address, "--follow", cwd=tmp_path)
    assert done.returncode == 4
    assert "labels" in done.stdout


@pytest.mark.ray
@pytest.mark.variant
def test_one_job_an_output_at_a_time(head: Head, tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", range(40))
    spec = write_spec(tmp_path, tmp_path, tmp_path / "out")

    def submit(*flags: str) -> subprocess.CompletedProcess[str]:
        return zsic(head, "submit", spec, "--address", head.address, *flags, cwd=tmp_path)

    nothing = submit("--stop")
    assert (nothing.returncode, "knows no job of" in nothing.stderr) == (2, True)

    first = submit("--no-wait")
    assert first.returncode == 0, first.stderr
    id = first.stdout.strip()
    assert id.endswith("-1")
    second = submit()
    assert second.returncode == 3
    assert second.stderr.startswith(f"zsic: {id} works on {tmp_path}/out already")

    stopped = submit("--stop")
    assert (stopped.returncode, stopped.stdout.startswith(f"{id} stopped")) == (0, True), stopped.stderr
    followed = submit("--follow")
    assert (followed.returncode, f"{id} was stopped" in followed.stderr) == (3, True)
    assert submit("--stop").stdout == f"{id} had ended before\n"

    # Ctrl-C ends the showing, not the job.
    command = [sys.executable, "-m", "zsic", "submit", str(spec), "--address", head.address]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **head.environment},
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as resumed:
        assert resumed.stdout is not None
        assert resumed.stderr is not None
        assert resumed.stderr.readline().startswith(f"submitted {id[:-1]}2")
        assert resumed.stdout.readline()
        resumed.send_signal(signal.SIGINT)
        assert "--follow" in resumed.stderr.read()
        assert resumed.wait() == 3
    followed = submit("--follow")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert read_table(tmp_path / "out", "id").num_rows == 40


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:8265", "ray://head:10001", "http://"])
def test_what_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(SpecError, match=r"http://HEAD:8265"):
        Cluster(address)


def test_nobody_there() -> None:
    started = time.monotonic()
    with pytest.raises(CapacityError, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1;"):
        Cluster("http://127.0.0.1:1")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(("version", "good"), [("2.59.3", False), ("2.64.0", False), ("2.61.0", True)])
def test_a_cluster_of_another_ray_is_refused(version: str, good: bool) -> None:
    class Old(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"version": "4", "ray_version": version, "ray_commit": "x"}).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            if good:
                Cluster(address)
            else:
                with pytest.raises(CapacityError, match=rf"runs Ray {version}; zsic needs .*>=2\.60"):
                    Cluster(address)
        finally:
            server.shutdown()


def test_a_log_that_is_read_again_goes_on_behind_what_was_seen() -> None:
    seen: list[str] = []
    first = _Lines(0, seen.append)
    first.add("one\ntw")
    first.add("o\nthr")
    assert seen == ["one", "two"]
    again = _Lines(first.n_written, seen.append)
    again.add("one\ntwo\nthree\n")
    again.add("four")
    again.end()
    assert seen == ["one", "two", "three", "four"]
