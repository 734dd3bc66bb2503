"""Change one place of the code at a time, run the tests of its module, and list the changes that no test notices.

    python tests/mutation.py [--seed 1] [--count 60] [--module zsic/storage/ledger.py] [--only ID] [--at-most 10]

A mutant lives in a copy of the package in a temporary folder, so the working tree is never touched.  Results are lines
of JSON in `--results`: a campaign that was stopped goes on where it stopped.
"""

import argparse
import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]

GOLDEN = "tests/test_golden.py::test_several_label_sets_with_embeddings_on_disk"
PROTOCOL = (
    "tests/storage/test_output.py",
    GOLDEN,
    "tests/storage/test_crashpoints.py",
    "tests/storage/test_simulation.py",
)
HEADS = ("tests/models/test_head.py", "tests/models/test_shares.py", "tests/models/test_classifier.py")
PIXELS = ("tests/core/test_preprocess.py", "tests/core/test_decode.py")
TESTS: dict[str, tuple[str, ...]] = {
    "zsic/storage/plan.py": PROTOCOL,
    "zsic/storage/ledger.py": ("tests/storage/test_ledger.py", *PROTOCOL),
    "zsic/storage/commit.py": PROTOCOL,
    "zsic/storage/lease.py": ("tests/storage/test_lease.py", *PROTOCOL),
    "zsic/storage/part.py": PROTOCOL,
    "zsic/storage/rows.py": ("tests/storage/test_rows.py", *PROTOCOL),
    "zsic/storage/slices.py": PROTOCOL,
    "zsic/storage/changes.py": PROTOCOL,
    "zsic/storage/snapshot.py": PROTOCOL,
    "zsic/storage/output.py": PROTOCOL,
    "zsic/storage/cleanup.py": PROTOCOL,
    "zsic/core/scoring.py": ("tests/core/test_scoring.py", "tests/core/test_verdict.py", *HEADS),
    "zsic/core/verdict.py": ("tests/core/test_verdict.py", "tests/core/test_predictions.py", *HEADS),
    "zsic/core/predictions.py": ("tests/core/test_predictions.py", *HEADS, GOLDEN),
    "zsic/core/preprocess.py": (*PIXELS, "tests/models/test_processor.py", "tests/models/test_explain.py"),
    "zsic/core/resize.py": PIXELS,
    "zsic/core/header.py": ("tests/core/test_header.py", *reversed(PIXELS), "tests/export/test_names.py"),
    "zsic/models/head.py": (*HEADS, "tests/models/test_thresholds.py", "tests/models/test_head_cache.py"),
}
"""Modules, and the files of tests that belong to each, in the order in which they run: the quick ones first."""

# Without Ray and S3, and without shrinking examples: that one fails is all there is to know.
RUNNER = """
import resource, sys, hypothesis, pytest
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("mutation", database=None, derandomize=True, phases=phases)
hypothesis.settings.load_profile("mutation")
options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not ray", "-k", "not [s3 and not -s3"]
sys.exit(pytest.main([*options, *sys.argv[2:]]))
"""

SWAPS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.And: ("and", "or"), ast.Or: ("or", "and"),
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
LARGEST_INT = 64
TEXTS = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict)
"""What `+` and `|` join; any other operator only raises `TypeError`."""
MESSAGES = (ast.JoinedStr, ast.Raise, ast.Assert)
NO_CODE = ("annotation", "returns", "decorator_list", "bases")
NO_EFFECT = ("strict", "use_threads", "pre_buffer")
"""Arguments that guard against our own mistakes, or make things faster."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """Bytes `start` to `stop` of a module, at `line` and `column`, become `after`."""

    module: str
    line: int
    column: int
    start: int
    stop: int
    after: str

    @property
    def id(self) -> str:
        """The same for the same change as long as the module does not change before it."""
        return f"{Path(self.module).stem}:{self.line}:{self.column}:{self.after or 'nothing'}".replace(" ", "_")


def find_mutations(module: str) -> Iterator[Mutation]:
    """Find all mutations of a module, in a fixed order."""
    source = (ROOT / module).read_bytes()
    lines = [0, *(match.end() for match in re.finditer(b"\n", source))]

    def locate(node: Any) -> tuple[int, int]:
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    def swap(operator: ast.AST, left: ast.AST, right: ast.AST) -> Iterator[tuple[int, int, str]]:
        if type(operator) in SWAPS:
            before, after = SWAPS[type(operator)]
            start = source.index(before.encode(), locate(left)[1], locate(right)[0])
            yield start, start + len(before), after

    def mutate(node: ast.AST, may_be_none: bool) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
                    yield from swap(operator, left, right)
            case ast.BoolOp(op=operator, values=[first, second, *_]):
                yield from swap(operator, first, second)
            case ast.BinOp(left=left, op=operator, right=right):
                if not any(isinstance(each, TEXTS) or _is_text(each) for each in (left, right)):
                    yield from swap(operator, left, right)
            case ast.AugAssign(target=left, op=operator, value=right):
                yield from swap(operator, left, right)
            case ast.UnaryOp(op=ast.Not() | ast.Invert() as operator):
                start = locate(node)[0]
                yield start, start + (4 if isinstance(operator, ast.Not) else 1), ""
            case ast.Subscript(slice=ast.Constant(value=0) as index):
                yield *locate(index), "-1"
            case ast.Call(func=called) if (name := ast.unparse(called).rpartition(".")[2]) in NAMES:
                stop = locate(called)[1]
                yield stop - len(name), stop, NAMES[name]
            case ast.Constant(value=bool(value)):
                yield *locate(node), str(not value)
            case ast.Constant(value=int(value)) if value <= LARGEST_INT:
                yield *locate(node), str({0: 1, 1: 0}.get(value, value + 1))
            case ast.Expr(value=ast.Call(func=called)) if ast.unparse(called) != "tell":
                yield *locate(node), "pass"
            case ast.Return(value=ast.AST() as value) if may_be_none and ast.unparse(value) != "None":
                yield *locate(value), "None"

    for node, may_be_none in _walk(ast.parse(source)):
        for start, stop, after in mutate(node, may_be_none):
            line = source.count(b"\n", 0, start)
            yield Mutation(module, line + 1, start - lines[line], start, stop, after)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _walk(node: ast.AST, may_be_none: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Go over the code that does something; each node with whether the function around it may return None."""
    if isinstance(node, MESSAGES) or (isinstance(node, ast.keyword) and node.arg in NO_EFFECT):
        return
    if isinstance(node, ast.FunctionDef):
        may_be_none = node.returns is not None and "None" in ast.unparse(node.returns)
    yield node, may_be_none
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if name not in NO_CODE and isinstance(each, ast.AST):
                yield from _walk(each, may_be_none)


def draw(seed: int, count: int, modules: list[str]) -> Iterator[Mutation]:
    """Draw mutations at random, from each module as many as its share of the lines."""
    ends, total = {}, 0
    for module in modules:
        total += len((ROOT / module).read_bytes().splitlines())
        ends[module] = total
    drawn = 0
    for module, end in ends.items():
        all_of_it = list(find_mutations(module))
        n = min(round(count * end / total) - drawn, len(all_of_it))
        drawn += n
        yield from sorted(Random(f"{seed} {module}").sample(all_of_it, n), key=lambda each: each.start)


def run_tests(folder: Path, tests: tuple[str, ...], cpu_s: int) -> str | None:
    """Run tests on the package in `folder`; the name of the test that failed, None if none did."""
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    # -P: the working tree, which is the current folder, must not come before the copy.
    command = [sys.executable, "-P", "-c", RUNNER, str(cpu_s), *tests]
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
    try:
        shown, _ = process.communicate(timeout=5 * cpu_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "time limit"
    if process.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", shown, re.MULTILINE)
    return failed[1] if failed else f"exit code {process.returncode}: {shown[-200:]}"


def try_mutation(package: Path, mutation: Mutation, cpu_s: int) -> dict[str, object]:
    """Put a mutation into the copy of the package, run the tests, and take it out again."""
    path, source = package.parent / mutation.module, (ROOT / mutation.module).read_bytes()
    begun = time.monotonic()
    path.write_bytes(source[: mutation.start] + mutation.after.encode() + source[mutation.stop :])
    killer = run_tests(package.parent, TESTS[mutation.module], cpu_s)
    path.write_bytes(source)
    line = source.splitlines()[mutation.line - 1].decode().strip()
    return {
        "id": mutation.id,
        "place": f"{mutation.module}:{mutation.line}",
        "code": line,
        "before": source[mutation.start : mutation.stop].decode(),
        "after": mutation.after,
        "killed_by": killer,
        "seconds": round(time.monotonic() - begun, 1),
    }


def show(found: dict[str, object]) -> str:
    """One row of the table."""
    before, after = (" ".join(str(found[name]).split())[:40] or "nothing" for name in ("before", "after"))
    return f"| {found['place']} | `{found['code']}` | `{before}` to `{after}` | {found['killed_by'] or 'survived'} |"


def main() -> None:
    """Run a campaign, or go on with one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60, help="mutants in all")
    parser.add_argument("--module", choices=TESTS, help="mutate one module alone")
    parser.add_argument("--only", metavar="ID", help="try one mutant, whether it was tried before or not")
    parser.add_argument("--at-most", type=int, default=10**6, help="stop after so many mutants; run again to go on")
    parser.add_argument("--cpu-seconds", type=int, default=90, help="a mutant that takes longer counts as noticed")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutation.jsonl")
    given = parser.parse_args()
    modules = [given.module] if given.module else list(TESTS)
    mutations = list(draw(given.seed, given.count, modules))
    if given.only:
        mutations = [each for module in modules for each in find_mutations(module) if each.id == given.only]
    given.results.parent.mkdir(parents=True, exist_ok=True)
    lines = given.results.read_text().splitlines() if given.results.exists() and not given.only else []
    results = {found["id"]: found for found in map(json.loads, lines)}
    left = [each for each in mutations if each.id not in results]
    with tempfile.TemporaryDirectory() as folder, given.results.open("a") as file:
        package = Path(folder, "zsic")
        shutil.copytree(ROOT / "zsic", package)
        if not results:  # tests that fail anyway would notice every mutant
            tests = dict.fromkeys(test for each in left for test in TESTS[each.module])
            if (failed := run_tests(package.parent, tuple(tests), 10 * given.cpu_seconds)) is not None:
                sys.exit(f"without any mutation: {failed}")
        for mutation in left[: given.at_most]:
            found = try_mutation(package, mutation, given.cpu_seconds)
            results[mutation.id] = found
            file.write(json.dumps(found) + "\n")
            file.flush()
            print(show(found), f"{found['seconds']} s", mutation.id, flush=True)
    done = [results[each.id] for each in mutations if each.id in results]
    counts = Counter((found["place"].partition(":")[0], found["killed_by"] is None) for found in done)
    print(f"\n{len(done)} of {len(mutations)} mutants tried\n\n| module | mutants | survived |\n|---|---|---|")
    for module in modules:
        print(f"| {module} | {counts[module, True] + counts[module, False]} | {counts[module, True]} |")
    print("\n".join(["", *(show(found) for found in done if found["killed_by"] is None)]))


if __name__ == "__main__":
    main()
