"""The table of tests/README.md names tests that exist, in the tier where it says that they are."""

import ast
import re
from pathlib import Path

import pytest
from support import TESTS

PAGE = (TESTS / "README.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("## Which test holds which promise") : PAGE.index("## Mutation")]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and ".py" in line
]
NAMED = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")


def marks_of(path: Path, name: str | None) -> set[str]:
    """Names of the pytest marks of a test or a class, or of a whole file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_file = {
        node.attr
        for each in tree.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "pytestmark"
        for node in ast.walk(each.value)
        if isinstance(node, ast.Attribute)
    }
    if name is None:
        return of_file
    found = [each for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == name]
    assert found, f"{path.name} has no {name}"
    # A mark in parametrize is one of a parameter.
    decorators = [each for each in found[0].decorator_list if "parametrize" not in ast.unparse(each)]
    return of_file | {node.attr for each in decorators for node in ast.walk(each) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_promise_is_held_by_a_test_of_the_middle_tier(row: list[str]) -> None:
    promise, middle, every, faults = row
    assert promise
    stays = NAMED.findall(middle)
    assert stays, "a promise with no test in make test"
    for file, name in stays:
        assert not {"variant", "faults", "skip"} & marks_of(TESTS / file, name or None), (file, name)
    for file, name in NAMED.findall(every + faults):
        marks_of(TESTS / file, name or None)
