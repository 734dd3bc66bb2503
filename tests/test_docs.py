"""What docs/ shows gives what it says."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from support.crashpoints import make_world
from support.toy import play, read_published

from zsic.core.embedding import Embeddings
from zsic.core.schema import SOURCE_TOTAL, output_schema
from zsic.core.spec import StoreSpec, make_spec
from zsic.storage.mirror import Mirror
from zsic.storage.output import Output
from zsic.storage.part import to_parquet
from zsic.storage.store import open_store

DOCS = Path(__file__).parent.parent / "docs"
DIM = 12


def _write_part(path: Path, first: int, answered: list[int]) -> np.ndarray:
    """A part of five rows, some without an answer; gives the vectors of the others."""
    rng = np.random.default_rng(first)
    image_BD = rng.normal(size=(len(answered), DIM)).astype(np.float32)
    image_BD /= np.linalg.norm(image_BD, axis=1, keepdims=True)
    embeddings = Embeddings(5, DIM)
    embeddings.enter(np.array(answered), image_BD)
    columns = {
        "embedding": embeddings.to_array(),
        "id": [first + at for at in range(5)],
        "uri": [f"{first + at}.jpg" for at in range(5)],
        "outcome": ["ok" if at in answered else "corrupt" for at in range(5)],
    }
    schema = output_schema(embedding_dim=DIM).append(pa.field(SOURCE_TOTAL, pa.int32()))
    arrays = [pa.array(columns.get(field.name, [None] * 5), field.type) for field in schema]
    path.write_bytes(to_parquet(pa.Table.from_arrays(arrays, schema=schema), {}))
    return image_BD


@pytest.mark.parametrize("package", ["pyarrow", "duckdb"])
def test_embeddings_are_read_as_shown(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labelled" / "_zsic").mkdir(parents=True)
    (tmp_path / "labelled" / "_zsic" / "job.json").write_text("{}")
    expected = [
        _write_part(tmp_path / "labelled" / "part-00001.parquet", 0, [0, 2, 3]),
        _write_part(tmp_path / "labelled" / "part-00002.parquet", 5, [1, 4]),
    ]
    snippets = re.findall(r"^```python\n(.*?)^```", (DOCS / "embeddings.md").read_text(), re.MULTILINE | re.DOTALL)
    (snippet,) = [each for each in snippets if f"import {package}" in each]
    found: dict[str, object] = {}
    exec(snippet, found)
    image_ND = found["image_ND"]
    assert isinstance(image_ND, np.ndarray)
    assert image_ND.dtype == np.dtype("<f2")
    np.testing.assert_array_equal(image_ND, np.concatenate(expected).astype("<f2"))


@pytest.mark.parametrize("package", ["deltalake", "duckdb"])
def test_a_delta_table_is_read_as_shown(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("labelled", StoreSpec())
    play(Output(store, Mirror(store, StoreSpec(), wanted=True)), make_world())
    snippets = re.findall(r"^```python\n(.*?)^```", (DOCS / "lake.md").read_text(), re.MULTILINE | re.DOTALL)
    snippet = next(each for each in snippets if ("duckdb" in each) == (package == "duckdb"))
    found: dict[str, object] = {}
    exec(snippet, found)
    rows = found["rows"]
    assert isinstance(rows, pa.Table)
    assert sorted(rows["uri"].to_pylist()) == sorted(str(row["uri"]) for row in read_published(store))
    assert set(rows["label"].to_pylist()) == {row["label"] for row in read_published(store)}


def test_a_delta_table_in_s3_is_read_as_shown(s3_bucket: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, bucket = s3_bucket
    spec = StoreSpec(s3_endpoint_url=endpoint)
    store = open_store(f"s3://{bucket}/labelled", spec)
    play(Output(store, Mirror(store, spec, wanted=True)), make_world())
    for name, value in {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    snippets = re.findall(r"^```python\n(.*?)^```", (DOCS / "lake.md").read_text(), re.MULTILINE | re.DOTALL)
    (snippet,) = [each for each in snippets if "s3://lake" in each]
    found: dict[str, object] = {}
    exec(snippet.replace("s3://lake", f"s3://{bucket}"), found)
    rows = found["rows"]
    assert isinstance(rows, pa.Table)
    assert sorted(rows["uri"].to_pylist()) == sorted(str(row["uri"]) for row in read_published(store))


def test_the_spec_of_the_lake_asks_for_a_table() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "lake.md").read_text(), re.MULTILINE | re.DOTALL)
    spec = make_spec({"source": "s3://lake/photos/", "labels": "labels.txt", **yaml.safe_load(text)})
    assert (spec.output.uri, spec.output.publish) == ("s3://lake/labelled", "delta")


def test_the_command_of_the_lake_is_the_readme_s() -> None:
    """Which runs those as they stand."""
    (command,) = re.findall(r"^zsic .*", (DOCS / "lake.md").read_text(), re.MULTILINE)
    assert command in (DOCS.parent / "README.md").read_text().splitlines()
