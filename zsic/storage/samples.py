"""Which reader a source needs; all of them give samples in order, and then the end."""

from collections.abc import Callable, Iterator

from zsic.core.spec import JobSpec
from zsic.storage.access import ReadError
from zsic.storage.objects import Objects
from zsic.storage.parquet import read_parquet
from zsic.storage.sample import End, Sample, Source
from zsic.storage.shard import read_shard
from zsic.storage.video import make_projector, read_video

Samples = Iterator[Sample | End]


def read_samples(
    source: Source, objects: Objects, spec: JobSpec, *, skip: Callable[[int], bool] = lambda index: False
) -> Samples:
    """Give the samples whose index is not to `skip`, in order, then `End` with the number of all.

    The same version of a source gives the same samples each time, whatever is skipped.  Never raises for what is
    wrong with the source: that is a sample with a failure, so every source has at least one.
    """
    max_bytes = spec.decode.max_bytes
    match source.kind:
        case "tar":
            return read_shard(source, objects, spec.source, max_bytes=max_bytes, skip=skip)
        case "parquet":
            return read_parquet(source, objects, spec.source, max_bytes=max_bytes, skip=skip)
        case "video":
            projector = make_projector(spec.source.fps, spec.decode, spec.execution.decode_timeout_s)
            return read_video(source, objects, projector, skip=skip)
        case "image":
            return _read_image(source, objects, max_bytes, skip)
        case "part":
            raise AssertionError(f"{source.uri} is a part of an output, in which there are no images")


def _read_image(source: Source, objects: Objects, max_bytes: int, skip: Callable[[int], bool]) -> Samples:
    if not skip(0):
        try:
            data = objects.read(source.uri, expect=source.info, max_bytes=max_bytes)
            yield Sample(0, None, data, None, source.columns)
        except ReadError as error:
            yield Sample(0, None, None, error.failure, source.columns)
    yield End(1)
