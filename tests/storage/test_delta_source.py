"""A Delta table as a source: what its log says is listed, whatever lies in the folder."""

import base64
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from support.place import Place

from zsic.core.errors import SourceError, SpecError
from zsic.core.spec import SourceSpec, StoreSpec
from zsic.storage.delta import location, storage_options
from zsic.storage.objects import Objects
from zsic.storage.sources import Listing

B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def write(place: Place, table: pa.Table, mode: str = "append", **options: object) -> DeltaTable:
    uri = place.at("table")
    reach = storage_options(uri, place.store)
    write_deltalake(location(uri), table, mode=mode, storage_options=reach, **options)  # type: ignore[call-overload]
    return DeltaTable(location(uri), storage_options=reach)


def listing(place: Place, uri: str | None = None, **spec: object) -> Listing:
    return Listing(SourceSpec(uris=(uri or place.at("table"),), **spec), Objects(place.store))  # type: ignore[arg-type]


def rows(found: Listing) -> list[dict[str, object]]:
    return [row for batch in found for row in batch.to_pylist()]


def uris_of(found: Listing) -> list[str]:
    return sorted(str(row["uri"]) for row in rows(found))


def manifest(*numbers: int) -> pa.Table:
    return pa.table({"uri": [f"s3://lake/{n}.jpg" for n in numbers], "owner": [f"o{n}" for n in numbers]})


def images(*numbers: int) -> pa.Table:
    return pa.table({"image": [b"\xff\xd8\xff%d" % n for n in numbers], "n": list(numbers)})


def test_rows_of_a_table_with_uris_are_sources(place: Place) -> None:
    write(place, manifest(1, 2))
    assert uris_of(listing(place)) == ["s3://lake/1.jpg", "s3://lake/2.jpg"]
    write(place, manifest(3))
    found = rows(listing(place, keep_columns="owner"))
    assert {row["uri"]: row["columns"] for row in found} == {
        f"s3://lake/{n}.jpg": json.dumps({"owner": f"o{n}"}) for n in (1, 2, 3)
    }
    # What was rewritten names the same images, and nothing is listed twice.
    write(place, manifest(1, 2, 3, 4), mode="overwrite")
    assert len(uris_of(listing(place))) == 4
    assert len(uris_of(listing(place, place.at("table") + "/", format="delta"))) == 4


def test_files_of_a_table_with_images_are_shards(place: Place) -> None:
    write(place, images(1, 2))
    write(place, images(3))
    write(place, images(4), mode="overwrite")
    table = write(place, images(5, 6))
    live = {place.at(f"table/{path}") for path in table.get_add_actions().column("path").to_pylist()}
    found = rows(listing(place))
    assert {row["uri"] for row in found} == live
    assert {row["kind"] for row in found} == {"parquet"}
    # The versions are those that any other spelling would list, so that spellings may change.
    all_files = {row["uri"]: row for row in rows(listing(place, format="parquet"))}
    assert len(all_files) == 4
    assert all(all_files[row["uri"]] == row for row in found)


def test_what_the_table_no_longer_has_is_covered(place: Place) -> None:
    write(place, images(1))
    (old,) = uris_of(listing(place))
    write(place, images(2), mode="overwrite")
    found = listing(place)
    (new,) = uris_of(found)
    assert new != old
    assert found.covers(old)
    assert not found.covers(place.at("elsewhere/1.parquet"))


def test_partitions_with_odd_names_are_found(place: Place) -> None:
    table = images(1, 2, 3).append_column("of", [["a b", "50 %/x", "é+&=?#"]])
    write(place, table, partition_by=["of"])
    assert len(rows(listing(place))) == 3


def test_a_file_that_is_lost_is_said(place: Place) -> None:
    write(place, images(1))
    (uri,) = uris_of(listing(place))
    write(place, images(2))
    place.delete(uri.removeprefix(place.uri + "/"))
    with pytest.raises(SourceError, match=r"names 1 files that are not there \(.*parquet\)"):
        rows(listing(place))


def test_what_is_no_table(place: Place) -> None:
    place.put("folder/a.jpg")
    with pytest.raises(SourceError, match="is no Delta table"):
        rows(listing(place, place.at("folder"), format="delta"))
    with pytest.raises(SourceError, match="is no Delta table"):
        rows(listing(place, place.at("nothing"), format="delta"))


def edit_log(folder: Path, change: dict[str, object]) -> None:
    """Add a version to a table, as another writer would."""
    version = len(list((folder / "_delta_log").glob("*.json")))
    lines = "".join(json.dumps({name: body}) + "\n" for name, body in change.items())
    (folder / "_delta_log" / f"{version:020d}.json").write_text(lines)


def start(tmp_path: Path) -> tuple[Path, dict[str, object], dict[str, object]]:
    write_deltalake(tmp_path / "table", images(1, 2, 3))
    lines = (tmp_path / "table" / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
    actions = {name: body for line in lines for name, body in json.loads(line).items()}
    return tmp_path / "table", actions["add"], actions["metaData"]


def features(*names: str) -> dict[str, object]:
    return {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": list(names),
        "writerFeatures": list(names),
    }


def list_folder(folder: Path) -> list[dict[str, object]]:
    return rows(Listing(SourceSpec(uris=(str(folder),)), Objects(StoreSpec(attempts=1))))


def test_deletion_vectors_are_refused_and_the_mere_feature_is_not(tmp_path: Path) -> None:
    folder, add, _ = start(tmp_path)
    edit_log(folder, {"protocol": features("deletionVectors")})
    assert len(list_folder(folder)) == 1
    # Row 1, as the protocol's description spells it: a magic number and a roaring bitmap, inline, in Z85.
    bitmap = struct.pack("<IQI", 1681511377, 1, 0) + struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, 1)
    text = base64.b85encode(bitmap + b"\0" * (-len(bitmap) % 4)).translate(bytes.maketrans(B85, Z85)).decode()
    vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(bitmap), "cardinality": 1}
    edit_log(
        folder,
        {
            "remove": {"path": add["path"], "dataChange": True, "deletionTimestamp": 1},
            "add": {**add, "deletionVector": vector},
        },
    )
    with pytest.raises(SourceError, match=r"deletion vectors.*REORG TABLE"):
        list_folder(folder)


def test_renamed_columns_are_refused(tmp_path: Path) -> None:
    folder, _, metadata = start(tmp_path)
    fields = json.loads(str(metadata["schemaString"]))
    for number, each in enumerate(fields["fields"]):
        each["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"c{number}"}
    mapped = {
        **metadata,
        "schemaString": json.dumps(fields),
        "configuration": {"delta.columnMapping.mode": "name"},
    }
    edit_log(folder, {"protocol": features("columnMapping"), "metaData": mapped})
    with pytest.raises(SourceError, match="uses columnMapping"):
        list_folder(folder)


def test_a_clone_is_refused(tmp_path: Path) -> None:
    folder, add, _ = start(tmp_path)
    edit_log(folder, {"add": {**add, "path": "s3://elsewhere/a.parquet"}})
    with pytest.raises(SourceError, match=r"is a clone.*s3://elsewhere/a\.parquet"):
        list_folder(folder)


def test_a_damaged_log_is_said(tmp_path: Path) -> None:
    folder, _, _ = start(tmp_path)
    (folder / "_delta_log" / f"{0:020d}.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read"):
        list_folder(folder)


def test_other_stores_and_names_are_refused(tmp_path: Path) -> None:
    folder, _, _ = start(tmp_path)
    folder.rename(tmp_path / "50%20off")
    with pytest.raises(SpecError, match="a % in its name"):
        list_folder(tmp_path / "50%20off")
    assert pq.read_table(next((tmp_path / "50%20off").glob("*.parquet"))).num_rows == 3
