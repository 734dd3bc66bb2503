"""A picture made small, for a page that people look at."""

import io

from zsic.core.decode import inspect, load
from zsic.core.spec import DecodeSpec

QUALITY = 80


def make_thumbnail(data: bytes, spec: DecodeSpec, side: int) -> bytes:
    """Decode a file and give it as JPEG, upright, its longer side at most `side` pixels.

    What the file holds beside its pixels (place, camera, owner) is left out.  Raises `DecodeError`.
    """
    file = inspect(data, spec)
    # A JPEG is decoded to a fraction of its size where that is enough; others take no notice.
    file.draft(None, (side, side))
    image = load(file, spec)
    image.thumbnail((side, side))
    image.info.clear()  # Pillow would write a comment again
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
