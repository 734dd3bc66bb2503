"""What can become of one image: the closed vocabulary of the `outcome` column."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Why a row has, or has not, a prediction; final for that version of the object."""

    OK = "ok"
    EMPTY = "empty"
    """Zero bytes, or a shard that holds no image."""
    NOT_AN_IMAGE = "not_an_image"
    """The bytes begin like none of the image formats (HTML, ZIP, text ...), whatever the name says."""
    UNSUPPORTED = "unsupported"
    """An image, in a format or pixel type that is not decoded (HEIC, SVG, float TIFF ...)."""
    CORRUPT = "corrupt"
    """An image of a supported format whose bytes are damaged or cut short."""
    TOO_LARGE = "too_large"
    """More bytes than `decode.max_bytes`."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """More pixels than `decode.max_pixels`, by its header."""
    DECODER_DIED = "decoder_died"
    """The image killed its decoder, or hung in it, or took more memory than a picture within the limits can need."""
    MISSING = "missing"
    """The object was there when the source was listed and is gone."""
    FORBIDDEN = "forbidden"
    """The store refused to hand the object out."""
    CHANGED = "changed"
    """The object is not the version that was listed."""
    UNREACHABLE = "unreachable"
    """The store did not answer in time, however often it was asked."""
    BAD_SHARD = "bad_shard"
    """The shard, or its rest from here on, cannot be read; stands for an unknown number of images."""
    NOT_FINITE = "not_finite"
    """The image tower returned NaN or infinity."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one image has no prediction.

    `detail` is deterministic text: no addresses, times, hosts or request ids, so that a retried task writes the
    same row.
    """

    outcome: Outcome
    detail: str
