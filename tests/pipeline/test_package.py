"""What a job on a cluster is sent, and what it looks at before it begins."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from zsic.core.errors import SpecError
from zsic.core.spec import JobSpec, load_spec, make_spec
from zsic.pipeline import entry
from zsic.pipeline.package import pack, read_requirements
from zsic.pipeline.submit import name_jobs

ROOT = Path(__file__).parents[2]


def spec(**fields: object) -> JobSpec:
    return make_spec({"source": "s3://lake/*.tar", "labels": "cat,dog", "output": "s3://lake/out", **fields})


def pack_into(folder: Path, made: JobSpec) -> Path:
    folder.mkdir()
    pack(made, folder)
    return folder


def test_the_spec_its_labels_and_zsic_are_sent_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("things.TXT").write_text("cat\ndog\n")
    Path(".gitignore").write_text("*\n")
    Path("clutter.bin").write_bytes(b"x" * 1_000_000)
    made = spec(labels={"path": "things.TXT", "templates": ["imagenet7"]}, execution={"num_gpus": 1})
    packed = pack_into(tmp_path / "packed", made)

    assert {path.name for path in packed.iterdir()} == {
        "entry.py",
        "requirements.json",
        "spec.yaml",
        "labels.txt",
        "zsic",
    }
    assert not list(packed.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in packed.rglob("*") if path.is_file()) < 5_000_000
    assert list((packed / "zsic").rglob("*.safetensors")), "the bundled model goes along"
    monkeypatch.chdir(packed)
    assert load_spec("spec.yaml").labels[0].path == "labels.txt"
    assert Path("labels.txt").read_text() == "cat\ndog\n"


def test_only_what_names_this_machine_is_changed(tmp_path: Path) -> None:
    made = spec(
        source={"uris": ["s3://lake/a", "/mnt/photos"], "keep_columns": ["page"]},
        model="openai/clip-vit-base-patch32",
        execution={"address": "ray://elsewhere:1", "num_gpus": 0.5, "max_failures": "3%"},
        store={"s3_endpoint_url": "http://ceph:7480"},
    )
    there = load_spec(pack_into(tmp_path / "packed", made) / "spec.yaml")
    assert there.execution.address == "auto"
    assert there == made.model_copy(update={"execution": made.execution.model_copy(update={"address": "auto"})})


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("source.uris", {"source": ["s3://lake/a", "photos/*.tar"]}),
        ("output.uri", {"output": "table"}),
        ("model.name", {"model": "checkpoint"}),
        ("labels.path", {"labels": "none.txt"}),
    ],
)
def test_relative_paths_are_refused(
    field: str, fields: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("checkpoint").mkdir()
    with pytest.raises(SpecError, match=rf"^{field}: .*runs elsewhere.*all machines of the cluster share"):
        pack_into(tmp_path / "packed", spec(**fields))


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = read_requirements()
    assert f">={needed['python']}" == project["requires-python"]

    def names(requirements: list[str]) -> list[str]:
        return sorted(re.split(r"[^\w-]", text)[0] for text in requirements)

    assert names(needed["packages"]) == names(project["dependencies"])


def test_here_is_all_that_is_needed() -> None:
    assert entry.find_problems(read_requirements()) == []


def test_what_a_cluster_lacks_is_said_before_zsic_is_imported(tmp_path: Path) -> None:
    packed = pack_into(tmp_path / "packed", spec())
    (packed / "zsic" / "__init__.py").write_text("raise SystemExit(99)")

    def run() -> tuple[int, list[str]]:
        done = subprocess.run([sys.executable, packed / "entry.py", "run", "spec.yaml"], capture_output=True, text=True)
        return done.returncode, done.stderr.splitlines()

    assert run()[0] == 99
    wanted = ["pyarrow>=20", "pillow>=99", "a-package-that-is-nowhere>=2", 'colorama>=1; sys_platform == "win32"']
    (packed / "requirements.json").write_text(json.dumps({"python": "3.11", "packages": wanted}))
    code, lines = run()
    assert code == 2
    assert re.fullmatch(r"zsic: the cluster has pillow [\d.]+; zsic needs >=99", lines[0])
    assert lines[1] == "zsic: the cluster lacks a-package-that-is-nowhere>=2"
    assert "cluster/README.md" in lines[2]
    (packed / "requirements.json").write_text(json.dumps({"python": "4.1", "packages": wanted}))
    code, lines = run()
    assert code == 2
    assert re.fullmatch(r"zsic: the cluster runs Python 3\.[\d.]+; zsic needs 4.1 or newer", lines[0])
    assert len(lines) == 2


def test_ids_follow_from_the_output_alone() -> None:
    assert name_jobs("s3://lake/out") == name_jobs("s3://lake/out/") != name_jobs("s3://lake/out2")
    assert re.fullmatch(r"zsic-b32-v1-[0-9a-f]{12}", name_jobs("s3://lake/b32 v1"))
    assert re.fullmatch(r"zsic-output-[0-9a-f]{12}", name_jobs("s3://lake/写真"))
    assert len(name_jobs(f"/mnt/{'x' * 300}")) == len("zsic-") + 24 + 1 + 12
