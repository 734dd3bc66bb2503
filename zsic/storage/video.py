"""What a video gives as a source: a row for each frame that is wanted, named by its time, and what damage leaves."""

import importlib.util
from collections.abc import Callable, Iterator

from zsic.core.errors import SpecError
from zsic.core.film import FilmError
from zsic.core.projector import Projector
from zsic.core.spec import DecodeSpec, JobSpec
from zsic.storage.access import ReadError
from zsic.storage.objects import Objects
from zsic.storage.range_file import RangeFile, open_version
from zsic.storage.sample import End, Sample, Source


def require_av() -> None:
    """Raise `SpecError` where the package that reads videos is not installed."""
    if importlib.util.find_spec("av") is None:
        raise SpecError(
            "source.fps takes frames of videos, which needs the package av on every machine; "
            "install it: pip install -c constraints.txt '.[video]' (in zsic's repository)"
        )


def read_video(
    source: Source, objects: Objects, projector: Projector, *, skip: Callable[[int], bool]
) -> Iterator[Sample | End]:
    """Give one sample for each frame at the projector's rate, keyed by its time, then the end.

    A video that cannot be read (from some time on) gives one sample without a key in place of the rest.
    """
    index = 0
    try:
        file = open_version(objects, source.info)
        for row in projector.project(file.size, _ranges_of(file), skip):
            index = row.index + 1
            if row.data is not None:
                yield Sample(row.index, row.key, row.data, None, source.columns, row.n_bytes)
    except (FilmError, ReadError) as error:
        failure = error.failure
    else:
        yield End(index)
        return
    if not skip(index):
        yield Sample(index, None, None, failure, source.columns)
    yield End(index + 1, failure)


def count_frames(source: Source, objects: Objects, spec: JobSpec) -> int:
    """How many rows a video will have, as its header tells; 1 where it cannot be read."""
    try:
        file = open_version(objects, source.info)
        return (
            make_projector(spec.source.fps, spec.decode, spec.execution.decode_timeout_s).count_about(
                file.size, _ranges_of(file)
            )
            or 1
        )
    except ReadError:
        return 1


def make_projector(fps: float | None, spec: DecodeSpec, timeout_s: float) -> Projector:
    """How the videos of a job are read.  Raises `SpecError` without a rate."""
    if fps is None:
        raise SpecError("source.fps is not set, and a video needs a rate of frames")
    return Projector(fps=fps, max_pixels=spec.max_pixels, upright=spec.exif_orientation, timeout_s=timeout_s)


def _ranges_of(file: RangeFile) -> Callable[[int, int], bytes]:
    def read(start: int, end: int) -> bytes:
        file.seek(start)
        return file.read(end - start)

    return read
