"""Every spec of `jobs/` is valid, says what it is, and is named for data, model and hardware."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from support.runs import LABELS, write_shard

from zsic.cli import run_command
from zsic.core.spec import load_spec

JOBS = Path(__file__).parents[2] / "jobs"
SPECS = sorted(JOBS.glob("*.yaml"))
ENTRY_POINTS = sorted(path.name for path in JOBS.glob("*.py"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_spec_loads_and_explains_itself(path: Path) -> None:
    spec = load_spec(path)
    assert spec.output.uri
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(path.stem.split("_")) == 3
    opening = text[: text.index("\nsource:")]
    assert any(word in opening for word in (" second", " minute", " hour")), "it says how long it takes"
    assert path.name in (JOBS / "README.md").read_text(encoding="utf-8")


def test_there_are_specs_and_entry_points() -> None:
    assert SPECS
    assert ENTRY_POINTS == ["classify.py", "enrich.py", "evaluate.py", "relabel.py"]
    for name in ENTRY_POINTS:
        assert f"`{name}`" in (JOBS / "README.md").read_text(encoding="utf-8")


def call(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run an entry point in this process, as `python jobs/NAME ...` would; its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(JOBS / name), run_name="__main__")
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize("name", ["classify.py", "enrich.py"])
def test_a_spec_that_is_not_there(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(name, tmp_path / "none.yaml", monkeypatch=monkeypatch) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_a_night_and_what_comes_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, out, spec = tmp_path / "s.tar", tmp_path / "out", tmp_path / "spec.yaml"
    write_shard(shard, range(20))
    fields = {"source": str(shard), "labels": LABELS, "output": {"uri": str(out), "embeddings": True}}
    spec.write_text(json.dumps(fields))
    assert run_command(["run", str(spec)]) == 0
    # Nothing is new: no cluster is needed, and the table is recounted all the same.
    capsys.readouterr()
    assert call("classify.py", spec, monkeypatch=monkeypatch) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert call("enrich.py", spec, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "Nothing to do" in said
    assert "whole" in said

    truth = tmp_path / "truth.csv"
    truth.write_text("key,label\n" + "".join(f"{n:05d}.{('jpg', 'png')[n % 2]},{LABELS[0]}\n" for n in range(20)))
    assert call("evaluate.py", out, "--truth", truth, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)

    other = str(tmp_path / "other")
    again = ["relabel", str(out), "--labels", "red,green", "--output", other]
    assert run_command(again) == 0
    capsys.readouterr()
    assert call("relabel.py", *again[1:], monkeypatch=monkeypatch) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert call("relabel.py", *again[1:-1], out, monkeypatch=monkeypatch) == 2

    next(out.glob("*.parquet")).unlink()
    assert call("enrich.py", spec, monkeypatch=monkeypatch) == 1
    assert "missing" in capsys.readouterr().err
