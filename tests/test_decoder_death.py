"""Images that crash their decoder and images that hang in it, in a job on Ray that is not interrupted."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from support import traps
from support.runs import LABELS, draw, read_table

pytestmark = [pytest.mark.ray, pytest.mark.variant]


def write_shard(path: Path, harmful: dict[int, bytes], n: int = 8) -> None:
    """A shard of pictures, some of them with a trap at their end."""
    with tarfile.open(path, "w") as tar:
        for number in range(n):
            file = path.parent / f"{number:03d}.img"
            file.write_bytes(draw(number) + harmful.get(number, b""))
            tar.add(file, file.name)
            file.unlink()


def test_each_deadly_image_is_a_row_and_the_job_is_whole(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_shard(source / "0.tar", {2: traps.CRASH, 5: traps.HANG})
    write_shard(source / "1.tar", {3: traps.HANG})
    command = [sys.executable, "-m", "zsic", "classify", str(source / "*.tar"), "--labels", ",".join(LABELS)]
    command += [
        "--output",
        str(out),
        "--engine",
        "ray",
        "--num-cpus",
        "2",
        "--decode-mode",
        "pil",
        "--decode-timeout-s",
        "3",
    ]
    path = os.pathsep.join([str(traps.lay(tmp_path)), *sys.path])
    began = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "decoder_died 3" in done.stdout
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 200

    rows = {(Path(row["uri"]).name, row["key"]): row for row in read_table(out).to_pylist()}
    crashed, hung = "the decoder was killed by signal 11", "the decoder took longer than 3 s"
    deadly = {("0.tar", "002.img"): crashed, ("0.tar", "005.img"): hung, ("1.tar", "003.img"): hung}
    assert {key: row["detail"] for key, row in rows.items() if row["outcome"] != "ok"} == deadly
    assert {row["outcome"] for key, row in rows.items() if key in deadly} == {"decoder_died"}
    # The shards hold the same pictures, so where both have an answer it is the same.
    assert len(rows) == 16
    for number in {*range(8)} - {2, 3, 5}:
        one, other = (rows[shard, f"{number:03d}.img"] for shard in ("0.tar", "1.tar"))
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
