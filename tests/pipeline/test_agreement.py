"""Before an output is begun, int8 is held against float32 on the job's own images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import LABELS, draw, read_table, write_shard

from zsic.core.errors import MismatchError, SpecError
from zsic.core.spec import JobSpec, change_labels, change_spec, make_spec
from zsic.demo.label_sets import labels
from zsic.pipeline.agreement import N_IMAGES, Agreement, check_agreement
from zsic.pipeline.job import prepare
from zsic.pipeline.run import run
from zsic.storage.sources import list_sources


def _spec(source: Path | str, out: Path, **execution: object) -> JobSpec:
    return make_spec(
        {
            "source": str(source),
            "labels": LABELS,
            "output": str(out),
            "model": {"name": "demo", "quantize": "int8"},
            "execution": execution,
        }
    )


def _check(spec: JobSpec, **arguments: int) -> Agreement:
    job = prepare(spec)
    return check_agreement(job, list_sources(spec.source, job.objects), **arguments)


# Making the tower int8 takes half a minute; the tests of one worker find it in their cache.
makes_int8 = pytest.mark.xdist_group("int8")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:05}.jpg").write_bytes(draw(number))
    return folder


@makes_int8
def test_what_can_be_decoded_is_compared(photos: Path, tmp_path: Path) -> None:
    (photos / "00007.jpg").write_bytes(b"no picture")
    agreement = _check(_spec(photos, tmp_path / "out"))
    assert agreement.n_images == 39
    assert agreement.share >= 0.9


@makes_int8
@pytest.mark.parametrize(
    ("shard_size", "n_images"), [(12, 20), pytest.param(200, N_IMAGES, marks=pytest.mark.variant)], ids=["few", "all"]
)
def test_images_of_several_shards_are_taken(shard_size: int, n_images: int, tmp_path: Path) -> None:
    """The first shard alone does not hold as many."""
    for shard in range(2):
        write_shard(tmp_path / f"{shard}.tar", range(shard * shard_size, (shard + 1) * shard_size))
    assert _check(_spec(f"{tmp_path}/*.tar", tmp_path / "out"), n_images=n_images).n_images == n_images


@makes_int8
def test_a_source_without_pictures_is_no_reason_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    assert _check(_spec(tmp_path / "photos", tmp_path / "out", min_agreement=1.0)) == Agreement(0, 0)


@makes_int8
def test_too_little_agreement_begins_nothing(tmp_path: Path) -> None:
    """On blurred noise many answers are near ties between a hundred labels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(60):
        noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    spec = _spec(folder, tmp_path / "out", min_agreement=1.0)
    spec = change_labels(spec, [{"names": tuple(labels())}])
    with pytest.raises(
        SpecError, match=r"gave the same label to [45]\d of 60 images .*, and execution\.min_agreement is 100\.0%"
    ):
        run(spec)
    assert not (tmp_path / "out").exists()


def test_a_gpu_or_another_dtype_is_refused(tmp_path: Path) -> None:
    spec = _spec(tmp_path, tmp_path / "out", num_gpus=1)
    with pytest.raises(SpecError, match=r"model\.quantize is int8, .* and execution\.num_gpus is 1;"):
        prepare(spec)
    spec = change_spec(_spec(tmp_path, tmp_path / "out"), {"model": {"dtype": "bfloat16"}})
    with pytest.raises(SpecError, match=r"model\.quantize is int8, and model\.dtype is bfloat16;"):
        prepare(spec)


def test_an_output_is_of_int8_or_it_is_not(tmp_path: Path) -> None:
    quick = _spec(tmp_path, tmp_path / "out")
    prepare(quick).output.claim(prepare(quick).fields)
    prepare(quick).output.check(prepare(quick).fields)
    exact = change_spec(quick, {"model": {"quantize": None}})
    with pytest.raises(MismatchError, match=r"model\.dtype: this run 'float32', the output 'int8'"):
        prepare(exact).output.check(prepare(exact).fields)


@makes_int8
def test_the_job_runs_in_int8(photos: Path, tmp_path: Path) -> None:
    _run_in_int8_and_in_float32(photos, tmp_path, {"engine": "local"})


@pytest.mark.ray
@pytest.mark.variant
def test_the_job_runs_in_int8_on_ray(photos: Path, tmp_path: Path, on_ray: dict[str, object]) -> None:
    _run_in_int8_and_in_float32(photos, tmp_path, on_ray)


def _run_in_int8_and_in_float32(photos: Path, tmp_path: Path, execution: dict[str, object]) -> None:
    spec = _spec(photos, tmp_path / "out", min_agreement=0.5, **execution)
    summary = run(spec)
    assert summary.outcomes == {"ok": 40}
    assert summary.agreement is not None
    assert summary.agreement.n_images == 40
    exact = change_spec(spec, {"model": {"quantize": None}, "output": {"uri": str(tmp_path / "exact")}})
    assert run(exact).agreement is None
    ours, theirs = read_table(tmp_path / "out"), read_table(tmp_path / "exact")
    assert ours["uri"] == theirs["uri"]
    same = sum(one == other for one, other in zip(ours["label"].to_pylist(), theirs["label"].to_pylist(), strict=True))
    assert abs(same - summary.agreement.n_same) <= 4  # in batches of another size
    assert ours["score"] != theirs["score"]
    (photos / "new.jpg").write_bytes(draw(99))
    again = run(spec)
    assert (again.n_rows, again.agreement) == (1, None)  # an output is compared when it is begun
