"""`cluster/README.md` can be followed as it stands: what it names exists, and what is to be changed is told."""

import json
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import botocore.session
import click
import pytest
import typer
import yaml
from botocore import xform_name
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config
from support.manifests import MANIFESTS, find_in_manifest, load

from zsic.cli import app
from zsic.core.spec import JobSpec, make_spec
from zsic.pipeline.package import read_requirements

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """What stands between fences; those of a list are indented."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", README, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


SNIPPETS = blocks("bash")
POLICIES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (CLUSTER / "policies").glob("*.json")}


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


def additions(file: str) -> list[Any]:
    """What the README has its reader write into a file, which the first line of each block names."""
    found = [text.partition("\n") for text in blocks("yaml")]
    return [yaml.safe_load(text) for first, _, text in found if first == f"# {file}"]


def test_what_is_to_be_added_to_a_file_is_valid_there() -> None:
    kinds = ("aws.yaml", "container", "service account", "job.yaml")
    assert sum(len(additions(kind)) for kind in kinds) == len(blocks("yaml"))
    config = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))
    (addition,) = additions("aws.yaml")
    assert not set(addition) & set(config), "a key that is there twice replaces the first"
    validate_config(prepare_config({**config, **addition}))
    for line in addition["initialization_commands"]:
        assert subprocess.run(["bash", "-n"], input=line, text=True, capture_output=True).stderr == "", line
    (addition,) = additions("service account")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "zsic"}}
    assert find_in_manifest({**account, **addition}) == []
    assert f"docker-registry {addition['imagePullSecrets'][0]['name']} " in README
    (addition,) = additions("container")
    manifests = [document for path in MANIFESTS for document in load(path) if document["kind"] == "RayCluster"]
    for group in [manifests[0]["spec"]["headGroupSpec"], *manifests[0]["spec"]["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        assert "envFrom" not in container
        container.update(addition)
    assert find_in_manifest(manifests[0]) == []
    assert f"create secret generic {addition['envFrom'][0]['secretRef']['name']} --from-env-file" in README


def test_the_spec_for_google_cloud_fits_its_nodes() -> None:
    (fields,) = additions("job.yaml")
    spec = make_spec(fields)
    config = yaml.safe_load((CLUSTER / "gcp.yaml").read_text(encoding="utf-8"))
    assert spec.output.uri.startswith("/mnt/lake/")
    assert "-v /mnt/lake:/mnt/lake" in config["docker"]["run_options"]
    assert spec.source.uris[0].partition("://")[0] in spec.store.allow_schemes
    assert spec.execution.max_encoders == config["available_node_types"]["gpu"]["max_workers"]
    assert spec.execution.wait_for_nodes_s >= 600


def test_the_spec_that_is_planned_is_the_nightly_one_without_its_cluster() -> None:
    (lines,) = [line for snippet in SNIPPETS for line in snippet.splitlines() if line.endswith("job.yaml > plan.yaml")]
    script = shlex.split(lines)[2]
    nightly = (ROOT / "jobs" / "lake_siglip2-b16_nightly.yaml").read_text(encoding="utf-8")
    planned = subprocess.run(["sed", "-E", script], input=nightly, text=True, capture_output=True, check=True).stdout
    execution = make_spec(yaml.safe_load(planned)).execution
    # `--cluster` takes no address, and what bounds the first minutes is not what bounds the run.
    assert (execution.address, execution.encoders, execution.decode_tasks) == (None, None, None)
    assert (execution.num_gpus, execution.max_encoders) == (1, 8)


def test_placeholders_are_filled_in_by_the_command_for_it(tmp_path: Path) -> None:
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    (line,) = [line for snippet in SNIPPETS for line in snippet.splitlines() if "cluster/policies/*.json" in line]
    for name in sorted(set.union(*(placeholders(path.read_text()) for path in CLUSTER.rglob("*.*ml")))):
        command = line.replace("CHANGE-ME-BUCKET", name).replace("my-lake", "a/b:c")
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    for path in (tmp_path / "cluster").rglob("*.yaml"):
        assert "CHANGE-ME" not in path.read_text(encoding="utf-8"), path


def aws_commands() -> list[list[str]]:
    """Each call of the `aws` command, as words."""
    text = "\n".join(SNIPPETS).replace("\\\n", " ")
    calls = re.findall(r"\baws (?:ec2|ecr|eks|iam|ssm|sts) [^\n|)#]+", text)
    return [shlex.split(call)[1:] for call in calls]


def test_commands_of_aws_have_the_names_that_it_has() -> None:
    """By botocore's model of each service, of which the command is made; and what is required is there."""
    session = botocore.session.get_session()
    # What the command has of its own.
    shorthand = {"authorize-security-group-ingress": {"protocol", "port", "cidr", "source-group"}}
    commands = [words for words in aws_commands() if words[:2] != ["ecr", "get-login-password"]]
    assert len(commands) > 15
    for service, verb, *rest in commands:
        model = session.get_service_model(service)
        (name,) = [each for each in model.operation_names if xform_name(each, "-") == verb]
        shape = model.operation_model(name).input_shape
        members = {xform_name(each, "-"): each for each in shape.members} if shape else {}
        given = {word[2:] for word in rest if word.startswith("--")} - {"query", "output"}
        assert given - shorthand.get(verb, set()) <= set(members), (service, verb)
        required = set(shape.required_members) if shape else set()
        assert required <= {members.get(flag) for flag in given}, (service, verb)


def test_each_cluster_is_told_in_the_same_steps() -> None:
    steps = ["Tools", "Rights", "Network", "Image", "Placeholders", "Start", "Submit", "Stop"]
    for name in ("AWS", "Kubernetes", "Google Cloud", "A Ray that somebody else runs"):
        (section,) = re.findall(rf"^## {name}\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
        assert re.findall(r"^\d\. \*\*(\w+)", section, re.MULTILINE) == steps, name


def test_lines_can_be_read() -> None:
    for path in (CLUSTER / "README.md", CLUSTER / "monitoring" / "README.md", ROOT / "jobs" / "README.md"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 150 or line.startswith("|"), line


def test_versions_are_those_of_the_image() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    (client,) = re.findall(r"google-api-python-client==\S+", README)
    assert client in dockerfile.split()
    (ray,) = [each for each in map(Requirement, read_requirements()["packages"]) if each.name == "ray"]
    least, last = re.findall(r"Ray (2\.\d+) to (2\.\d+)", README)[0]
    minor = int(last.partition(".")[2])
    assert ray.specifier.contains(f"{least}.0")
    assert ray.specifier.contains(f"2.{minor}.0")
    assert not ray.specifier.contains(f"2.{minor + 1}.0")


def test_links_and_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (CLUSTER / target).exists(), target
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(#([^)]+)\)", README):
        assert target in anchors, target
    for name in re.findall(r"\b(?:cluster|jobs)/[\w./-]+\.(?:yaml|py)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:kuberay|monitoring|policies)/[\w.-]+\.\w+)`", README):
        assert (CLUSTER / name).exists(), name


def test_commands_have_the_flags_that_they_are_given() -> None:
    commands = [re.split(r"  +#", line)[0] for snippet in SNIPPETS for line in snippet.splitlines()]
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
    assert set(POLICIES) == {"lake", "head", "trust-ec2", "trust-eks"}
    lake, head, ec2, eks = (POLICIES[name]["Statement"] for name in ("lake", "head", "trust-ec2", "trust-eks"))
    for statement in [*lake, *head, *ec2, *eks]:
        assert set(statement) <= {"Effect", "Action", "Resource", "Condition", "Principal"}
    named = set(re.findall(r"file://cluster/policies/([\w-]+)\.json", README))
    assert named == set(POLICIES)
    accounts = [
        each["metadata"]["name"] for each in yaml.safe_load_all((CLUSTER / "kuberay" / "base.yaml").read_text())
    ]
    trusted = eks[0]["Condition"]["StringEquals"]["CHANGE-ME-OIDC:sub"]
    assert {name.rpartition(":")[2] for name in trusted} == {"zsic", "zsic-head"} & set(accounts)
    assert [each["Principal"] for each in ec2] == [{"Service": "ec2.amazonaws.com"}]
    writing = [each for each in lake if "s3:PutObject" in each["Action"]]
    assert [each["Resource"] for each in writing] == ["arn:aws:s3:::CHANGE-ME-BUCKET/labelled/*"]
    (ending,) = [each for each in head if "ec2:TerminateInstances" in each["Action"]]
    name = yaml.safe_load((CLUSTER / "aws.yaml").read_text(encoding="utf-8"))["cluster_name"]
    assert ending["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": name}}
    (passing,) = [each for each in head if each["Action"] == "iam:PassRole"]
    assert passing["Resource"] == "arn:aws:iam::*:role/zsic-worker"
    assert "for role in zsic-head zsic-worker; do" in README
    for document in (CLUSTER / "kuberay").glob("*.yaml"):
        for output in re.findall(r"(?:output|uri): (s3://\S+)", document.read_text(encoding="utf-8")):
            assert output.startswith("s3://CHANGE-ME-BUCKET/labelled/")


def test_arguments_of_the_image_exist() -> None:
    arguments = set(re.findall(r"^ARG (\w+)=", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    given = set(re.findall(r"--build-arg (\w+)=", README))
    assert {"TORCH", "MODEL"} <= given <= arguments
