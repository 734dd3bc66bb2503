"""Golden files: what an output holds, written so that two runs can be compared, and the comparison itself.

What two correct runs may differ in is replaced, each kind here by name and for one reason:

| replaced | why |
|---|---|
| the folder of the test, by `ROOT` | absolute paths are in uris, plans and messages |
| `piece-<digest>`, `again-<digest>`, digests and sizes of parts | Parquet files hold the version of pyarrow, and uris |
| the digest of a plan (in names of parts, in snapshots), `parent` | they follow from the digests above |
| the last piece of a part's name | random in each run |
| names in `_zsic/runs`, signs of life in `_zsic/lease` | clock, random numbers, and how long the run took |
| `mtime_ns` of objects in S3 | the server's clock; of files on disk the test sets it |
| versions of libraries in footers | they may rise without a change of the rows |
| `_zsic/store.json`: its value | a race on a test server decides it |
| of the records of runs all but what the run did | clocks, the cluster, and versions |

`check_links` compares the replaced digests with what they stand for.  Scores and similarities may differ by
`SCORE_TOLERANCE`, and embeddings by two steps of float16: another CPU or another batch rounds differently.
"""

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCORE_TOLERANCE = 1e-4
EMBEDDING_TOLERANCE = 2.0**-10
"""Two steps of float16 between 0.5 and 1; no entry of a unit vector is larger."""
LEAST_GAP = 2e-5
"""Between neighbours in `predictions`: less could change their order on another CPU."""

Files = Mapping[str, bytes]
"""Everything below the output's folder, by name."""

_VERSIONS = ("version", "ray", "pillow", "torch", "transformers")
_OF_RUNS = (
    "output",
    "fingerprint",
    "state",
    "resumed",
    "n_sources",
    "n_rows",
    "n_rows_before",
    "n_rows_in_all",
    "n_redone",
    "n_dropped",
    "n_superseded",
    "outcomes",
    "has_delta_table",
)
_NAMES = (
    (re.compile(r"piece-[0-9a-f]{24}"), "piece-<digest>"),
    (re.compile(r"(part-\d{5})-[0-9a-f]{8}-again-[0-9a-f]{16}"), r"\1-<plan>-again-<digest>"),
    (re.compile(r"(part-\d{5})-[0-9a-f]{8}-(?!again-)[0-9a-z-]+"), r"\1-<plan>-<task>"),
    (re.compile(r"runs/\d{8}T\d{6}Z-[0-9a-f]{8}"), "runs/<time>-<random>"),
)


@dataclass(frozen=True)
class Golden:
    """Files to compare with, or to renew on purpose: `make golden`.

    A file is renewed once, and only if it differs: rounding makes no noise in a commit, and whatever compares with the
    same file afterwards, another engine for example, must agree with it.
    """

    folder: Path
    renew: bool
    _renewed: set[Path] = field(default_factory=set)

    def check_text(self, name: str, text: str) -> None:
        """Compare a text, letter by letter."""
        path = self.folder / name
        if self._is_to_renew(path) and (not path.exists() or path.read_text(encoding="utf-8") != text):
            _write(path, text)
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; `make golden` renews it"

    def check(self, name: str, value: Any) -> None:
        """Compare what JSON can hold; a file `.jsonl` has a line for each entry of a list."""
        path = self.folder / name
        value = json.loads(json.dumps(value))
        if self._is_to_renew(path) and (not path.exists() or any(find_differences(_load(path), value))):
            lines = map(json.dumps, value) if path.suffix == ".jsonl" else [json.dumps(value, indent=1)]
            _write(path, "".join(f"{line}\n" for line in lines))
        differences = list(find_differences(_load(path), value))
        assert not differences, f"{path} differs; `make golden` renews it\n" + "\n".join(differences[:20])

    def _is_to_renew(self, path: Path) -> bool:
        is_first = self.renew and path not in self._renewed
        self._renewed.add(path)
        return is_first

    def check_output(self, name: str, files: Files, root: str = "ROOT") -> None:
        """Compare an output: its rows, and everything that zsic writes beside them."""
        check_links(files)
        rows = read_rows(files, root)
        if self.renew:
            check_gaps(rows)
        self.check(f"{name}/rows.jsonl", rows)
        for part, value in describe(files, root).items():
            self.check(f"{name}/{part}.json", value)


@contextlib.contextmanager
def bucket_named(client: Any, bucket: str) -> Iterator[None]:
    """Make a bucket, and delete it with its objects: outputs that are compared hold its name."""
    client.create_bucket(Bucket=bucket)
    yield
    for name in names_in_bucket(client, bucket):
        client.delete_object(Bucket=bucket, Key=name)
    client.delete_bucket(Bucket=bucket)


def names_in_bucket(client: Any, bucket: str, prefix: str = "") -> list[str]:
    """List all objects below a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))


def files_of_folder(folder: Path) -> Files:
    """Read all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def files_of_bucket(client: Any, bucket: str, prefix: str) -> Files:
    """Read all objects below a prefix."""
    names = names_in_bucket(client, bucket, prefix)
    return {name.removeprefix(prefix): client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}


def describe(files: Files, root: str = "ROOT") -> dict[str, Any]:
    """Say what an output holds, but for its rows."""
    plans = [json.loads(files[name]) for name in _numbered(files, "_zsic/plan")]
    runs = [json.loads(data) for name, data in files.items() if name.startswith("_zsic/runs/")]
    made = {
        "names": sorted(_plain(name) for name in files if ".beat-" not in name),
        "job": json.loads(files["_zsic/job.json"]),
        "store": sorted(json.loads(files["_zsic/store.json"])),
        "plans": [_describe_plan(plan, files) for plan in plans],
        "snapshots": [_describe_snapshot(json.loads(files[name])) for name in _numbered(files, "_zsic/snapshot")],
        "parts": [_describe_part(files[name]) for name in _parts(files)],
        # By what they say: two that end within one second have no order by name.
        "runs": sorted(({name: run[name] for name in _OF_RUNS} for run in runs), key=json.dumps),
    }
    return _without_root(made, root)


def read_rows(files: Files, root: str = "ROOT") -> list[dict[str, Any]]:
    """Read the table, in order of id; embeddings as hexadecimal digits."""
    tables = [pq.read_table(io.BytesIO(files[name])) for name in _parts(files)]
    rows = [row for table in tables for row in table.to_pylist()]
    for row in rows:
        for name, value in row.items():
            if isinstance(value, bytes):
                row[name] = value.hex()
    return _without_root(sorted(rows, key=lambda row: row["id"]), root)


def check_links(files: Files) -> None:
    """Compare digests and sizes with the files that they are of."""
    plans = {name: hashlib.sha256(files[name]).hexdigest() for name in _numbered(files, "_zsic/plan")}
    for name, data in files.items():
        if name.startswith("_zsic/plan/piece-"):
            assert name == f"_zsic/plan/piece-{hashlib.sha256(data).hexdigest()[:24]}.parquet"
    parent = None
    for name in _numbered(files, "_zsic/snapshot"):
        snapshot = json.loads(files[name])
        assert snapshot["parent"] == parent
        assert snapshot["plan_digest"] == plans[name.replace("snapshot", "plan")]
        parent = hashlib.sha256(files[name]).hexdigest()
    if parent is not None:
        for part in snapshot["parts"]:
            kind, _, digest = part["digest"].partition(":")
            data = files[part["name"]]
            assert len(data) == part["n_bytes"]
            # The ETag of an object that was put in one request is its MD5.
            assert hashlib.new({"etag": "md5"}.get(kind, kind), data).hexdigest() == digest
    tags = [f"part-{number:05d}-{digest[:8]}-" for number, digest in enumerate(plans.values(), 1)]
    assert all(name.startswith(tuple(tags)) for name in _parts(files))


def check_gaps(rows: list[dict[str, Any]]) -> None:
    """Refuse pictures whose predictions another CPU could put into another order."""
    for row in rows:
        for name, predictions in row.items():
            if not name.startswith("predictions") or not predictions:
                continue
            for left, right in pairwise(predictions):
                gap = max(abs(left[key] - right[key]) for key in ("score", "similarity"))
                assert gap >= LEAST_GAP, f"{row['uri']} {row['key']}: {name} has a tie; use another picture"


def find_differences(expected: Any, actual: Any, at: str = "") -> Iterator[str]:
    """Compare two values of JSON; numbers and embeddings up to their tolerance."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        if list(expected) != list(actual):
            yield f"{at}: keys {list(expected)}, now {list(actual)}"
        for key in expected.keys() & actual.keys():
            yield from find_differences(expected[key], actual[key], f"{at}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{at}: {len(expected)} entries, now {len(actual)}"
        for number, (left, right) in enumerate(zip(expected, actual, strict=False)):
            yield from find_differences(left, right, f"{at}[{number}]")
    elif isinstance(expected, float) and isinstance(actual, float):
        if actual != pytest.approx(expected, abs=SCORE_TOLERANCE, rel=0):
            yield f"{at}: {expected}, now {actual}"
    elif at.endswith(".embedding") and isinstance(expected, str) and isinstance(actual, str):
        left, right = _vector(expected), _vector(actual)
        if left.shape != right.shape or not np.allclose(left, right, rtol=0, atol=EMBEDDING_TOLERANCE):
            yield f"{at}: the embedding differs"
    elif type(expected) is not type(actual) or expected != actual:
        yield f"{at}: {expected!r}, now {actual!r}"


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _vector(digits: str) -> Any:
    return np.frombuffer(bytes.fromhex(digits), "<f2").astype(np.float32)


def _numbered(files: Files, folder: str) -> list[str]:
    return sorted(name for name in files if re.fullmatch(rf"{folder}/\d{{8}}\.json", name))


def _parts(files: Files) -> list[str]:
    """The files that a reader of `OUT/*.parquet` finds, in order of their first ids."""
    names = [name for name in files if "/" not in name and name.endswith(".parquet")]
    return sorted(names, key=lambda name: pq.read_table(io.BytesIO(files[name]), columns=["id"])["id"][0].as_py())


def _plain(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = pattern.sub(replacement, name)
    return name


def _describe_plan(plan: dict[str, Any], files: Files) -> dict[str, Any]:
    for kind in ("redone", "added", "dropped"):
        plan[kind] = [{**piece, "name": _plain(piece["name"]), **_describe_piece(piece, files)} for piece in plan[kind]]
    return plan


def _describe_piece(piece: dict[str, Any], files: Files) -> dict[str, Any]:
    table = pq.read_table(io.BytesIO(files[piece["name"]]))
    rows = table.to_pylist()
    for row in rows:
        if row["etag"] is not None:  # of S3, whose clock this is
            row["mtime_ns"] = "<clock>" if isinstance(row["mtime_ns"], int) else row["mtime_ns"]
    return {"schema": _describe_schema(table.schema), "rows": rows}


def _describe_snapshot(snapshot: dict[str, Any]) -> dict[str, Any]:
    replaced = {"digest": "<digest>", "n_bytes": "<bytes>"}
    parts = [{**part, **replaced, "name": _plain(part["name"])} for part in snapshot["parts"]]
    parent = None if snapshot["parent"] is None else "<digest>"
    return {**snapshot, "parent": parent, "plan_digest": "<digest>", "parts": parts}


def _describe_part(data: bytes) -> dict[str, Any]:
    """Say how a part is written: schema, footer, and for each column what readers use to skip it."""
    file = pq.ParquetFile(io.BytesIO(data))
    footer = {}
    for key, value in sorted((file.schema_arrow.metadata or {}).items()):
        name = key.decode().removeprefix("zsic.")
        footer[key.decode()] = "<version>" if name in _VERSIONS else json.loads(value)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    return {
        "n_rows": [group.num_rows for group in groups],
        "file_keys": sorted(key.decode() for key in file.metadata.metadata),
        "footer": footer,
        "schema": _describe_schema(file.schema_arrow),
        "columns": {
            column.path_in_schema: {
                "type": column.physical_type,
                "compression": column.compression,
                "dictionary": column.has_dictionary_page,
                "statistics": column.is_stats_set,
            }
            for column in (groups[0].column(number) for number in range(groups[0].num_columns))
        },
    }


def _describe_schema(schema: pa.Schema) -> list[dict[str, Any]]:
    return [
        {
            "name": field.name,
            "type": str(field.type),
            "nullable": field.nullable,
            # Parquet's own number of the column, which pyarrow adds, is no promise.
            "metadata": {
                key.decode(): value.decode()
                for key, value in (field.metadata or {}).items()
                if not key.startswith(b"PARQUET:")
            },
        }
        for field in schema
    ]


def _without_root(value: Any, root: str) -> Any:
    """Replace the test's folder wherever it is named."""
    text = json.dumps(value).replace(json.dumps(root)[1:-1], "ROOT")
    return json.loads(text)
