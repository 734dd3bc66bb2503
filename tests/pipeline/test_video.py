"""Videos in the main job, on a real Ray."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import draw, read_table
from support.videos import decode_all, make_video

from zsic.core.errors import MismatchError
from zsic.core.spec import JobSpec
from zsic.models.classifier import Classifier
from zsic.pipeline.run import run


def test_frames_are_rows_beside_images_and_another_rate_is_another_job(
    spec_for: Callable[..., JobSpec], tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "source"
    folder.mkdir()
    data = make_video("mp4", 30, size=(96, 80), noise=True)
    (folder / "a.mp4").write_bytes(data)
    (folder / "b.jpg").write_bytes(draw(2))
    broken = make_video("mkv", 30, size=(96, 80), noise=True)
    (folder / "c.mkv").write_bytes(broken[: len(broken) // 2])
    spec = spec_for({"uris": str(folder), "fps": 2})
    summary = run(spec)
    table = read_table(tmp_path / "out")
    rows = table.to_pylist()
    of_video = [row for row in rows if row["uri"].endswith("a.mp4")]
    assert [row["key"] for row in of_video] == [f"00:00:0{k // 2}.{k % 2 * 5}00" for k in range(6)]
    assert {(row["outcome"], row["width"], row["height"]) for row in of_video} == {("ok", 96, 80)}
    expected = Classifier("demo", list(spec.labels[0].names)).predict(
        [Image.fromarray(frame_HW3) for frame_HW3 in decode_all(data)[::5]]
    )
    for row, answers in zip(of_video, expected, strict=True):
        assert row["label"] == answers[0]["label"]
        assert row["score"] == pytest.approx(answers[0]["score"], abs=1e-3)
    *good, last = [row for row in rows if row["uri"].endswith("c.mkv")]
    assert {row["outcome"] for row in good} == {"ok"}
    assert (last["key"], last["outcome"]) == (None, "bad_shard")
    assert last["detail"].startswith("the video breaks off at 00:00:0")
    assert summary.n_rows == len(rows) == 6 + 1 + len(good) + 1
    assert run(spec).state == "unchanged"
    with pytest.raises(MismatchError, match=r"source\.fps: this run 4\.0, the output 2\.0"):
        run(spec_for({"uris": str(folder), "fps": 4}))
    with pytest.raises(MismatchError, match=r"source\.fps: this run None, the output 2\.0"):
        run(spec_for({"uris": str(folder)}))
