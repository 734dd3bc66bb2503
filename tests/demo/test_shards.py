import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from zsic.core.errors import SpecError
from zsic.demo.label_sets import true_label
from zsic.demo.scene import ATTRIBUTES, Scene
from zsic.demo.shards import TRUTH_COLUMNS, write_shards


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as file:
        contents = {member.name: file.extractfile(member) for member in file}
        return {name: content.read() for name, content in contents.items() if content}


def truth(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_shards_and_truth_agree(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "demo", n_images=50, seed=4, images_per_shard=50)
    contents, rows = members(tmp_path / "demo" / "demo-00000.tar"), truth(path)
    assert tuple(rows[0]) == TRUTH_COLUMNS
    assert len(rows) == 50
    assert len(contents) == 100
    assert {row["held_out"] for row in rows} == {"true", "false"}
    for row in rows:
        assert row["uri"] == str(tmp_path / "demo" / "demo-00000.tar")
        scene = Scene(**{name: row[name] for name in ATTRIBUTES})
        assert row["label"] == true_label(scene) == f"{scene.colour} {scene.shape}"
        assert row["held_out"] == str(scene.held_out).lower()
        assert row["tags"] == f"{scene.colour};{scene.shape};{scene.pattern}"
        described = json.loads(contents[f"{row['key'].partition('.')[0]}.json"])
        assert described == {name: row[name] for name in (*ATTRIBUTES, "held_out")}
        with Image.open(io.BytesIO(contents[row["key"]])) as picture:
            width_px, height_px = ImageOps.exif_transpose(picture).size
        assert min(width_px, height_px) >= 160
        assert max(width_px, height_px) <= 480
    assert {key.partition(".")[2] for key in contents} == {"jpg", "png", "webp", "json"}


def test_a_seed_fixes_the_pictures_however_they_are_sharded(tmp_path: Path) -> None:
    first = write_shards(tmp_path / "a", n_images=6, seed=1, images_per_shard=6)
    again = write_shards(tmp_path / "b", n_images=6, seed=1, images_per_shard=3)
    assert [row["label"] for row in truth(first)] == [row["label"] for row in truth(again)]
    whole = members(tmp_path / "a" / "demo-00000.tar")
    halves = [members(tmp_path / "b" / f"demo-0000{index}.tar") for index in (0, 1)]
    assert whole == halves[0] | halves[1]


def test_broken_members_are_extra_and_cannot_be_opened(tmp_path: Path) -> None:
    path = write_shards(tmp_path, n_images=3, seed=0, images_per_shard=5, n_broken=6)
    assert len(truth(path)) == 3
    broken = {name: content for name, content in members(tmp_path / "demo-00000.tar").items() if "broken" in name}
    assert len(broken) == 6
    for content in broken.values():
        with pytest.raises((UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError)):
            Image.open(io.BytesIO(content)).load()


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "demo-00009.tar").write_bytes(b"old")
    write_shards(tmp_path, n_images=1, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo-00000.tar", "truth.csv"]


def test_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="0 images"):
        write_shards(tmp_path, n_images=0, seed=0)
