"""Every spec of `jobs/` is valid, says what it is, and is named for data, model and hardware."""

import runpy
import sys
from pathlib import Path

import pytest

from zsic.core.spec import load_spec

JOBS = Path(__file__).parents[2] / "jobs"
SPECS = sorted(JOBS.glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_spec_loads_and_explains_itself(path: Path) -> None:
    spec = load_spec(path)
    assert spec.output.uri
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert len(path.stem.split("_")) == 3


def test_there_are_specs() -> None:
    assert SPECS


def test_entry_point_is_zsic_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["classify.py", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(JOBS / "classify.py"), run_name="__main__")
    assert stopped.value.code == 2
    assert "none.yaml" in capsys.readouterr().err
