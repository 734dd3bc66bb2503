"""The README's commands run as they stand, and its claims are those of the code."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from support.runs import draw, write_shard

from zsic.cli import run_command
from zsic.core.labels import load_labels
from zsic.core.outcome import Outcome
from zsic.core.schema import AnswerColumns, output_schema
from zsic.core.spec import LabelsSpec, make_spec
from zsic.models.families import FAMILIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[list[str]]:
    lines = (line.split("   #")[0].strip() for block in blocks("bash", text) for line in block.splitlines())
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def test_nothing_is_left_to_fill_in() -> None:
    for path in (*ROOT.glob("*.md"), *ROOT.glob("jobs/*.md"), *ROOT.glob("zsic/**/*.md")):
        assert "@@" not in path.read_text(encoding="utf-8")


def test_first_screen_sells_before_it_shows_code() -> None:
    assert README.splitlines().index("```bash") <= 15


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {words[1] for words in commands() if words[0] == "make"}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)


def test_every_outcome_family_and_column_is_named() -> None:
    for outcome in Outcome:
        assert f"`{outcome}`" in README
    for family in FAMILIES:
        assert f"`{family}`" in README
    for name in output_schema(embedding_dim=8, answers=[AnswerColumns(None, has_labels=True, has_path=True)]).names:
        assert f"`{name}`" in README


def prepare(folder: Path, s3_server: str) -> None:
    """Put into a folder and into S3 what the commands of the README need, and no more."""
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="lake")
    for entry in client.list_objects_v2(Bucket="lake").get("Contents", []):
        client.delete_object(Bucket="lake", Key=entry["Key"])
    for number in range(2):
        shard = write_shard(folder / "shard.tar", range(number * 10, number * 10 + 10))
        client.put_object(Bucket="lake", Key=f"photos/photos-{number:05d}.tar", Body=shard.read_bytes())
    (folder / "labels.txt").write_text("red circle\nblue square\ngreen star\n")
    (folder / "photo.jpg").write_bytes(draw(0))
    (folder / "job.yaml").write_text(blocks("yaml")[0])
    for name in ("zsic", "jobs"):
        (folder / name).symlink_to(ROOT / name)


def arguments_of_zsic() -> list[list[str]]:
    """The arguments of each `zsic` command of the README, then of jobs/README.md; `make demo` comes before them."""
    texts = (README, (ROOT / "jobs" / "README.md").read_text(encoding="utf-8"))
    return [
        ["demo", "--images", "60"],
        *(words[1:] for text in texts for words in commands(text) if words[0] == "zsic"),
    ]


@pytest.mark.xdist_group("demo")
def test_commands_run(
    demo_folder: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo_folder)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    prepare(demo_folder, s3_server)
    for arguments in arguments_of_zsic():
        code = run_command(arguments)
        out, err = capfd.readouterr()
        assert code == 0, (arguments, out, err)
        assert out, arguments
    assert (demo_folder / "labelled-again").is_dir()


@pytest.mark.ray
@pytest.mark.variant
def test_commands_run_as_processes_with_a_cold_start(tmp_path: Path, s3_server: str) -> None:
    prepare(tmp_path, s3_server)
    for arguments in arguments_of_zsic():
        done = subprocess.run(
            [str(Path(sys.executable).parent / "zsic"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "AWS_ENDPOINT_URL": s3_server, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert done.stdout
    assert (tmp_path / "labelled-again").is_dir()


def test_spec_of_the_readme_is_valid() -> None:
    fields = yaml.safe_load(blocks("yaml")[0])
    made = make_spec(fields)
    assert (made.output.uri, made.scoring.top_k) == (fields["output"], fields["scoring"]["top_k"])


def test_label_file_of_the_readme_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("yaml")[1:]
    (tmp_path / "animals.yaml").write_text(text)
    label_set = load_labels(LabelsSpec(path=str(tmp_path / "animals.yaml")))
    assert label_set.names == ("robin", "house sparrow", "cat", "an empty landscape")
    assert label_set.rules.has_tree
    assert label_set.rules.reject_some


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(draw(0))
    monkeypatch.chdir(tmp_path)
    code = "\n".join(line for line in blocks("python")[0].splitlines() if "zsic.run" not in line)
    names: dict[str, object] = {}
    exec(code, names)
    answers = names["classifier"].predict("photo.jpg")  # type: ignore[attr-defined]
    assert {"score", "label"} == set(answers[0])
