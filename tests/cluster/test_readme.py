"""`cluster/README.md` can be followed as it stands: what it names exists, and what is to be changed is told."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from zsic.cli import app
from zsic.core.spec import JobSpec

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"CHANGE-ME(?:-[A-Z]+)+", text))


def test_everything_that_must_be_changed_is_told_and_where() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `CHANGE-ME")]
    told = {name: row for row in rows for name in placeholders(row.split("|")[1])}
    files = [path for path in CLUSTER.rglob("*") if path.is_file() and path.name != "README.md"]
    used = {path: placeholders(path.read_text(encoding="utf-8")) for path in files}
    assert set(told) == set.union(*used.values())
    for path, names in used.items():
        for name in names - {"CHANGE-ME-IMAGE"}:
            assert f"`{path.relative_to(CLUSTER)}`" in told[name], f"{name} is in {path.name}, too"
    assert "CHANGE-ME-" not in re.sub(r"CHANGE-ME(-[A-Z]+)+", "", README)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_shell_snippets_parse(snippet: str) -> None:
    assert subprocess.run(["bash", "-n"], input=snippet, text=True, capture_output=True).stderr == ""


def test_what_is_to_be_added_to_a_file_is_valid_there() -> None:
    additions = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)]
    assert additions
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    for addition in additions:
        assert not set(addition) & set(config), "a key that is there twice replaces the first"
        validate_config(prepare_config({**config, **addition}))
        for line in addition["initialization_commands"]:
            assert subprocess.run(["bash", "-n"], input=line, text=True, capture_output=True).stderr == "", line


def test_links_and_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (CLUSTER / target).exists(), target
    for name in re.findall(r"\b(?:cluster|jobs)/[\w./-]+\.(?:yaml|py)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:kuberay|monitoring)/[\w.]+)`", README):
        assert (CLUSTER / name).exists(), name


def test_commands_have_the_flags_that_they_are_given() -> None:
    commands = [line.split("   #")[0] for snippet in SNIPPETS for line in snippet.splitlines()]
    ours = [shlex.split(line)[1:] for line in commands if line.startswith("zsic ")]
    ours += [document.split() for document in re.findall(r"`zsic ([a-z]+ SPEC[^`]*)`", README)]
    assert len(ours) >= 5
    group = typer.main.get_command(app)
    for verb, *rest in ours:
        command = group.get_command(click.Context(group), verb)  # type: ignore[attr-defined]
        assert command is not None, verb
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, (verb, rest)


def test_fields_exist() -> None:
    groups = {name: field.annotation for name, field in JobSpec.model_fields.items()}
    named = re.findall(r"`(source|model|decode|store|output|execution|update)\.(\w+)", README)
    assert len(named) > 8
    for group, field in named:
        assert field in groups[group].model_fields, f"{group}.{field}"  # type: ignore[union-attr]


def test_policies_write_nowhere_but_to_the_table_and_end_nothing_but_the_cluster() -> None:
    texts = re.findall(r"^```json\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lake, head, trust = (json.loads(text)["Statement"] for text in texts)
    accounts = [
        each["metadata"]["name"] for each in yaml.safe_load_all((CLUSTER / "kuberay" / "base.yaml").read_text())
    ]
    trusted = trust[0]["Condition"]["StringEquals"]["OIDC:sub"]
    assert {name.rpartition(":")[2] for name in trusted} == {"zsic", "zsic-head"} & set(accounts)
    writing = [each for each in lake if "s3:PutObject" in each["Action"]]
    assert [each["Resource"] for each in writing] == ["arn:aws:s3:::CHANGE-ME-BUCKET/labelled/*"]
    (ending,) = [each for each in head if "ec2:TerminateInstances" in each["Action"]]
    name = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))["cluster_name"]
    assert ending["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": name}}
    for document in (CLUSTER / "kuberay").glob("*.yaml"):
        for output in re.findall(r"(?:output|uri): (s3://\S+)", document.read_text(encoding="utf-8")):
            assert output.startswith("s3://CHANGE-ME-BUCKET/labelled/")


def test_arguments_of_the_image_exist() -> None:
    arguments = set(re.findall(r"^ARG (\w+)=", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    given = set(re.findall(r"--build-arg (\w+)=", README))
    assert {"TORCH", "MODEL"} <= given <= arguments
