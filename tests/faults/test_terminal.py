"""What names, labels and files say, no terminal obeys: every command that prints them, errors included."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.runs import draw

from zsic import cli
from zsic.console.hush import hush
from zsic.console.job import show_summary
from zsic.core.schema import output_schema
from zsic.core.terminal import is_hidden
from zsic.pipeline.summary import RunSummary

EVIL = "\x1b[2J\x1b]0;owned\x07\u202egpj\x9b31m\r\u2028\n\x7fx[red]y[/red]"
"""Clears the screen, sets the title, reverses, colours, goes back to the start of the line."""

Zsic = Callable[..., tuple[int, str]]


@pytest.fixture
def zsic(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Zsic:
    """Run a command in this process; checks that all it prints is harmless."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["zsic", *map(str, arguments)])
        monkeypatch.setenv("TERM", "dumb")
        code = cli.run_command()
        told = "".join(capfd.readouterr())
        assert_harmless(told)
        return code, told

    return run


def assert_harmless(text: str) -> None:
    assert [char for char in text if is_hidden(char) and char != "\n"] == []


@pytest.fixture
def evil_file(tmp_path: Path) -> Path:
    path = tmp_path / f"{EVIL.replace('/', '')}.png"
    path.write_bytes(b"no image")
    return path


def test_errors_about_sources(zsic: Zsic, tmp_path: Path, evil_file: Path) -> None:
    common = ("--labels", "a,b", "--output", tmp_path / "out")
    for source in (
        f"{tmp_path}/no{EVIL}",
        f"{tmp_path}/*{EVIL}*.tar",
        f"s3://{EVIL}/x",
        f"{EVIL}://x",
        f"s3:///{EVIL}",
    ):
        code, told = zsic("classify", source, *common)
        assert code == 2
        assert "x1b[2J" in told
    evil_file.with_suffix(".csv").write_text("url\nx\n")
    assert zsic("classify", evil_file.with_suffix(".csv"), *common)[0] == 2
    assert zsic("plan", evil_file.with_suffix(".csv"), *common)[0] == 2


@pytest.mark.parametrize(
    "entry", [f"http://{EVIL}", f"data:{EVIL}/x,", f"a::{EVIL}s3://x", "n" * 9000, f"s3:///{EVIL}"]
)
def test_errors_about_entries_of_manifests(zsic: Zsic, tmp_path: Path, entry: str) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"uri": entry}) + "\n")
    code, told = zsic("classify", tmp_path / "m.jsonl", "--labels", "a,b", "--output", tmp_path / "out")
    assert code == 2
    assert "row 1" in told


@pytest.mark.parametrize("column", [f"x{EVIL}", "\ud800x"])
def test_errors_about_columns(zsic: Zsic, tmp_path: Path, column: str) -> None:
    (tmp_path / "m.csv").write_text(f'"x{EVIL}"\na\n'.replace("\r", ""), encoding="utf-8")
    common = ("--labels", "a,b", "--output", tmp_path / "out")
    assert zsic("classify", tmp_path / "m.csv", *common, "--uri-column", column)[0] == 2
    pq.write_table(pa.table({f"a{EVIL}": [b"x"], f"b{EVIL}": [b"x"]}), tmp_path / "m.parquet")
    code, told = zsic("classify", tmp_path / "m.parquet", *common)
    assert code == 2
    assert "source.image_column" in told


def test_predict(zsic: Zsic, tmp_path: Path, evil_file: Path) -> None:
    good = tmp_path / f"good {evil_file.name}"
    good.write_bytes(draw(1))
    code, told = zsic("predict", evil_file, good, "--labels", "cat,dog")
    assert code == 0
    assert told.count("x1b[2J") == 2
    code, told = zsic("predict", good, "--labels", "cat,dog", "--json")
    assert {answer["label"] for answer in json.loads(told)} == {"cat", "dog"}
    assert zsic("predict", tmp_path / f"no{EVIL}", "--labels", "cat,dog")[0] == 2


def test_labels_and_models(zsic: Zsic, tmp_path: Path) -> None:
    for name, text in (("a.txt", f"cat\n{EVIL}\n"), ("a.csv", f'label\n"{EVIL}"\n'), ("a.json", json.dumps([EVIL]))):
        (tmp_path / name).write_text(text)
        assert zsic("labels", "check", tmp_path / name)[0] == 2
    assert zsic("labels", "check", f"a,{EVIL}")[0] == 2
    assert zsic("labels", "check", "a,b", "--template", EVIL)[0] == 2
    assert zsic("labels", "check", tmp_path / f"{EVIL}.txt")[0] == 2
    for model in (f"./{EVIL}", EVIL, f"nonsense://{EVIL}"):
        assert zsic("labels", "check", "a,b", "--model", model)[0] == 2
        assert zsic("model", "pull", model, "--output", tmp_path / "model")[0] == 2
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": EVIL}))
    assert zsic("labels", "check", "a,b", "--model", folder)[0] == 2


def test_specs_and_flags(zsic: Zsic, tmp_path: Path) -> None:
    spec = tmp_path / f"{EVIL}.yaml".replace("/", "")
    assert zsic("run", spec)[0] == 2
    for text in (f"a: {json.dumps(EVIL)}", json.dumps({EVIL: 1}), "source: [", f"output: {json.dumps({EVIL: 1})}"):
        spec.write_text(text)
        assert zsic("run", spec)[0] == 2
    # A shell's glob gives such names to any command.
    code, told = zsic("predict", f"--{EVIL}", "--labels", "a,b")
    assert code == 2
    assert "predict --help" in told
    assert zsic("classify", "x", "--top-k", EVIL)[0] == 2
    assert zsic(EVIL)[0] == 2


def test_verify_and_evaluate(zsic: Zsic, tmp_path: Path) -> None:
    assert zsic("verify", tmp_path / EVIL)[0] == 2
    assert zsic("verify", f"s3://{EVIL}/x", "--s3-endpoint-url", "http://127.0.0.1:1")[0] == 5
    assert zsic("evaluate", tmp_path / EVIL, "--truth", "folder")[0] == 2
    publish(tmp_path / "out", f"{EVIL}.jpg", EVIL)
    (tmp_path / "truth.csv").write_text(f'uri,label\n"{EVIL}.jpg","{EVIL}"\n"no{EVIL}","b{EVIL}"\n', newline="")
    for flags in ((), ("--json",)):
        code, told = zsic("evaluate", tmp_path / "out", "--truth", tmp_path / "truth.csv", *flags)
        assert code == 0, told
        assert "1b[2J" in told
        if flags:
            assert json.loads(told)["truth_unmet"] == [f"no{EVIL}"]
    (tmp_path / "out" / f"part-{EVIL}.parquet".replace("/", "")).write_bytes(b"x")
    assert zsic("verify", tmp_path / "out")[0] in (1, 5)
    (tmp_path / "truth.csv").write_text(f'"{EVIL}",label\nx,y\n', newline="")
    assert zsic("evaluate", tmp_path / "out", "--truth", tmp_path / "truth.csv")[0] == 2


def publish(folder: Path, uri: str, label: str) -> None:
    """An output of one row, as far as `evaluate` looks at it."""
    row = {"id": 0, "uri": uri, "outcome": "ok", "label": label, "score": 0.5, "width": 1, "height": 1}
    row["predictions"] = [{"label": label, "score": 0.5, "similarity": 0.5}]
    (folder / "_zsic" / "snapshot").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema=output_schema(())), folder / "part-x.parquet")
    snapshot = {
        "sequence": 1,
        "parent": None,
        "plan_digest": "x",
        "fingerprint": "x",
        "parts": [{"name": "part-x.parquet", "n_rows": 1, "n_bytes": 1, "digest": EVIL, "first_id": 0, "last_id": 0}],
        "n_rows": 1,
        "increment": {"n_sources": 1, "n_rows": 1, "outcomes": {"ok": 1}},
    }
    (folder / "_zsic" / "snapshot" / "00000001.json").write_text(json.dumps(snapshot))


def test_the_summary_of_a_run(capfd: pytest.CaptureFixture[str]) -> None:
    summary = RunSummary(f"/out/{EVIL}", "f", "complete", n_rows=3, n_rows_in_all=3, outcomes={EVIL: 3})
    show_summary(summary)
    told = capfd.readouterr().out
    assert_harmless(told)
    assert "[red]" in told


def test_what_was_held_back_when_a_run_breaks(capfd: pytest.CaptureFixture[str]) -> None:
    def break_down() -> None:
        with hush():
            os.write(2, f"Ray says {EVIL}\n".encode())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_down()
    told = capfd.readouterr().err
    assert "Ray says" in told
    assert_harmless(told)


def test_a_bug_keeps_its_traceback_and_it_is_harmless(zsic: Zsic, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr("zsic.console.inspect.verify", break_down)
    code, told = zsic("verify", "x")
    assert code == 1
    assert "Traceback" in told
    assert "RuntimeError" in told
