"""Draw the pictures that the golden run classifies: `python tests/golden/draw_source.py`.

The files in `source/` are kept because encoders of other versions would write other bytes.  Draw them again only if
the source itself has to change; then run `make golden`.
"""

import io
import json
import shutil
import tarfile
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from zsic.demo.drawing import draw
from zsic.demo.scene import Scene, sample

SOURCE = Path(__file__).parent / "source"
HTML = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"


def picture(number: int, form: str = "JPEG", size_px: tuple[int, int] = (120, 90), turn: int = 1) -> bytes:
    """Encode one drawn picture; `turn` is its EXIF orientation."""
    image = draw(scene(number), Random(f"golden picture {number}"), size_px)
    buffer = io.BytesIO()
    if form == "PNG":
        image = image.convert("RGBA")
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(buffer, form)
        return buffer.getvalue()
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"exif": exif} if turn != 1 else {}
    image.save(buffer, form, quality=75, **options)
    return buffer.getvalue()


def scene(number: int) -> Scene:
    """Choose what a picture shows."""
    return sample(Random(f"golden scene {number}"))


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    """Write a tar shard; a name may occur several times."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def group(number: int) -> list[tuple[str, bytes]]:
    """Give the members of one WebDataset sample: the image and what is known of it."""
    known = json.dumps(scene(number).attributes()).encode()
    return [(f"{number:03d}.jpg", picture(number)), (f"{number:03d}.json", known)]


def main() -> None:
    """Write all files."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for name in ("shards", "photos", "later"):
        (SOURCE / name).mkdir(parents=True)
    cut = picture(6)
    write_shard(
        SOURCE / "shards" / "a.tar",
        [
            *(member for number in range(5) for member in group(number)),
            ("004.jpg", picture(5)),  # the name of the one before
            ("006.jpg", cut[: len(cut) // 2]),
            ("007.txt", b"no image"),
        ],
    )
    write_shard(SOURCE / "shards" / "b.tar", [member for number in range(10, 15) for member in group(number)])
    pq.write_table(
        pa.table(
            {
                "image": [*(picture(number) for number in range(20, 26)), None],
                "json": [*(json.dumps(scene(number).attributes()) for number in range(20, 26)), None],
            }
        ),
        SOURCE / "table.parquet",
        row_group_size=4,
    )
    photos = {f"{number}.jpg": picture(number, size_px=(90, 90 + 10 * (number % 4))) for number in range(30, 40)}
    photos |= {
        "alpha.png": picture(40, "PNG", (48, 40)),
        "turned.jpg": picture(41, turn=6),
        "small.webp": picture(42, "WEBP", (64, 64)),
        "damaged.jpg": picture(43)[:900],
        "empty.png": b"",
        "page.jpg": HTML,
        "notes.txt": b"This file lies beside images; a listing leaves it out.\n",
    }
    for name, data in photos.items():
        (SOURCE / "photos" / name).write_bytes(data)
    (SOURCE / "later" / "31.jpg").write_bytes(picture(51))  # what 31.jpg changes to
    (SOURCE / "later" / "0-new.jpg").write_bytes(picture(52))


if __name__ == "__main__":
    main()
