"""The Kubernetes manifests of `cluster/`, and the schema that holds each of their keys."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from support import TESTS

CLUSTER = TESTS.parent / "cluster"
SCHEMAS = TESTS / "cluster" / "schemas"
MANIFESTS = [*sorted((CLUSTER / "kuberay").glob("*.yaml")), CLUSTER / "monitoring" / "podmonitor.yaml"]
_KUBERNETES = json.loads((SCHEMAS / "kubernetes.json").read_text())


def load(path: Path) -> list[Any]:
    """The documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def find_in_manifest(document: Any) -> list[str]:
    """What is wrong with a manifest."""
    schema = _KUBERNETES["$defs"]["kinds"].get(document.get("kind"))
    if schema is None:
        return [f"kind {document.get('kind')!r}"]
    validator = jsonschema.Draft202012Validator({**schema, "$defs": _KUBERNETES["$defs"]})
    return [error.message for error in validator.iter_errors(document)]
