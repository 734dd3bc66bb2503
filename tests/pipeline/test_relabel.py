"""Other labels for an output's rows, from its embeddings; and heads that are fitted to them."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from s3fs import S3FileSystem
from support.runs import cut_last_snapshot, read_table

from zsic.cli import run_command
from zsic.core.errors import MismatchError, ModelError, SourceError, SpecError
from zsic.core.labels import load_labels
from zsic.core.spec import JobSpec, LabelsSpec, ModelSpec, StoreSpec, change_spec, make_spec
from zsic.core.verdict import NONE
from zsic.demo.label_sets import labels as demo_labels
from zsic.demo.shards import write_shards
from zsic.evaluate import load_truth
from zsic.models.checkpoint import resolve
from zsic.models.classifier import Classifier
from zsic.models.head import Head
from zsic.models.head_cache import find_heads
from zsic.pipeline.heads import adjust_shares, calibrate, compile_labels
from zsic.pipeline.labelled import Labelled, Tagged
from zsic.pipeline.relabel import Relabel
from zsic.pipeline.run import run
from zsic.pipeline.sight import Sight
from zsic.storage.slices import cut
from zsic.storage.store import open_store
from zsic.storage.verify import find_differences

N_IMAGES = 90
Execution = dict[str, object]

LABEL_FILE = """\
back_off: 0.6
reject: {background: [an empty page], min_score: 0.1}
templates: [simple, "a picture of a {}."]
labels:
- name: round
  children:
  - {name: red circle, synonyms: red disc}
  - blue circle
  - {name: green ring, descriptions: "a ring that is green"}
- name: angular
  children: [red square, blue square, {name: yellow triangle, threshold: 0.4}]
- star
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures in shards, two labels sets over them, and an output with embeddings, to be read only."""
    folder = tmp_path_factory.mktemp("lake")
    write_shards(folder / "shards", N_IMAGES, 0, images_per_shard=40, n_broken=4)
    (folder / "labels.yaml").write_text(LABEL_FILE)
    (folder / "all.txt").write_text("\n".join(demo_labels()))
    run(_classify({"engine": "local"}, folder, folder / "out", [{"path": str(folder / "all.txt")}]))
    return folder


def _classify(execution: Execution, folder: Path, output: Path, labels: Any, **fields: Any) -> JobSpec:
    return make_spec(
        {
            "source": f"{folder}/shards/*.tar",
            "labels": labels,
            "output": {"uri": str(output), "embeddings": True, "rows_per_part": 20},
            "execution": {**execution, "block_rows": 20},
            **fields,
        }
    )


def _relabel(
    execution: Execution, origin: Path, to: Path, labels: Any, *, output: dict[str, Any] | None = None, **fields: Any
) -> JobSpec:
    return make_spec(
        {
            "source": {"uris": str(origin), "format": "output"},
            "labels": labels,
            "output": {"uri": str(to), **(output or {})},
            "execution": execution,
            **fields,
        }
    )


def by_key(folder: Path) -> pa.Table:
    return read_table(folder).sort_by([("uri", "ascending"), ("key", "ascending")])


def assert_same_answers(ours: pa.Table, theirs: pa.Table) -> None:
    """All columns say the same, ids and embeddings left out, up to the rounding of embeddings to float16."""
    assert [name for name in ours.column_names if name != "embedding"] == [
        name for name in theirs.column_names if name != "embedding"
    ]
    for name in ("uri", "key", "outcome", "detail", "width", "height"):
        assert ours[name].equals(theirs[name]), name
    near = 0
    for our, their in zip(ours.to_pylist(), theirs.to_pylist(), strict=True):
        for name, value in our.items():
            if name.startswith("predictions"):
                assert (value is None) == (their[name] is None)
                scores = [[each["score"] for each in row[name] or ()] for row in (our, their)]
                assert scores[0] == pytest.approx(scores[1], abs=0.01)
            if name.startswith(("label", "path")) and value != their[name]:
                near += 1  # an answer that hangs on the last bits
    assert near <= 0.02 * ours.num_rows


def test_is_classifying_anew_without_an_image(lake: Path, execution: Execution, tmp_path: Path) -> None:
    labels = [
        {"name": "shape", "path": str(lake / "labels.yaml")},
        {"name": "colour", "names": ["red", "green", "blue"], "templates": ["a {} thing"]},
    ]
    anew = run(_classify(execution, lake, tmp_path / "anew", labels))
    moved = tmp_path / "moved"
    shutil.copytree(lake / "out", moved)
    shutil.move(lake / "shards", lake / "away")
    try:
        summary = run(_relabel(execution, moved, tmp_path / "out", labels))
    finally:
        shutil.move(lake / "away", lake / "shards")
    assert (summary.n_rows, summary.outcomes) == (anew.n_rows, anew.outcomes)
    ours, theirs = by_key(tmp_path / "out"), by_key(tmp_path / "anew")
    assert ours.num_rows == N_IMAGES + 4
    assert_same_answers(ours, theirs)
    assert "embedding" not in ours.column_names
    assert set(ours["label_shape"].drop_null().to_pylist()) > {"round", "star"}
    assert list(find_differences(open_store(str(tmp_path / "out"), StoreSpec()))) == []
    again = run(_relabel(execution, moved, tmp_path / "out", labels))
    assert again.state == "unchanged"
    with pytest.raises(MismatchError, match="labels"):
        run(_relabel(execution, moved, tmp_path / "out", ["cat", "dog"]))


def test_follows_an_output_that_grows_and_changes(execution: Execution, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 60, 1, images_per_shard=30)
    held = tmp_path / "shards" / "demo-00001.tar"
    later = held.read_bytes()
    held.unlink()
    classify = _classify(execution, tmp_path, tmp_path / "out", demo_labels())
    relabel = _relabel(
        execution,
        tmp_path / "out",
        tmp_path / "other",
        ["circle", "square", "star"],
        output={"embeddings": True},
    )
    run(classify)
    assert run(relabel).n_rows == 30
    first = read_table(tmp_path / "other")
    held.write_bytes(later)
    run(classify)
    grown = run(relabel)
    assert (grown.n_rows, grown.n_rows_in_all) == (30, 60)
    second = read_table(tmp_path / "other")
    assert second.slice(0, 30).equals(first), "what was there stays as it is"
    # The first shard becomes another: its rows go, and others come.
    (tmp_path / "shards" / "demo-00000.tar").write_bytes(later)
    run(classify)
    changed = run(relabel)
    assert (changed.n_rows, changed.n_rows_in_all) == (30, 60)
    origin, other = by_key(tmp_path / "out"), by_key(tmp_path / "other")
    for name in ("uri", "key", "outcome", "embedding"):
        assert other[name].equals(origin[name]), name
    assert len(set(read_table(tmp_path / "other")["id"].to_pylist())) == 60
    assert list(find_differences(open_store(str(tmp_path / "other"), StoreSpec()))) == []


def test_what_is_missing_of_an_open_plan_is_all_that_is_done(lake: Path, execution: Execution, tmp_path: Path) -> None:
    spec = _relabel(
        execution,
        lake / "out",
        tmp_path / "out",
        ["circle", "square"],
        output={"rows_per_part": 20},
    )
    run(spec)
    whole = read_table(tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(parts) > 1
    cut_last_snapshot(tmp_path / "out")
    n_lost = pq.read_metadata(parts[0]).num_rows
    parts[0].unlink()
    summary = run(spec)
    assert (summary.n_rows, summary.n_rows_before) == (whole.num_rows, whole.num_rows - n_lost)
    assert read_table(tmp_path / "out").equals(whole)


def test_lakes_in_an_object_store(lake: Path, execution: Execution, tmp_path: Path, s3_server: str) -> None:
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="relabel")
    store = {"s3_endpoint_url": s3_server}
    source = {"uris": "s3://relabel/out", "format": "output"}
    labels = str(lake / "labels.yaml")
    classify = _classify(execution, lake, Path("/"), labels, store=store)
    run(change_spec(classify, {"output": {"uri": "s3://relabel/out"}}))
    made = _relabel(execution, Path("/"), Path("/"), labels, store=store)
    summary = run(change_spec(made, {"source": source, "output": {"uri": "s3://relabel/other"}}))
    assert summary.n_rows == N_IMAGES + 4
    files = S3FileSystem(endpoint_url=s3_server)
    ours, theirs = (
        pa.concat_tables(
            [
                pq.read_table(file)
                for name in sorted(files.glob(f"relabel/{out}/*.parquet"))
                for file in [files.open(name)]
            ]
        )
        for out in ("other", "out")
    )
    order = [("uri", "ascending"), ("key", "ascending")]
    assert_same_answers(ours.sort_by(order), theirs.sort_by(order))
    assert list(find_differences(open_store("s3://relabel/other", StoreSpec(**store)))) == []


def test_what_cannot_be_is_said_before_anything_runs(
    lake: Path, execution: Execution, tmp_path: Path, tiny_checkpoints: dict[str, Path]
) -> None:
    def relabel(origin: Path, output: Path = tmp_path / "x", **fields: Any) -> None:
        run(_relabel(execution, origin, output, ["a", "b"], **fields))

    with pytest.raises(SourceError, match=r"source\.uris: .*nowhere is no output of zsic's that is published"):
        relabel(tmp_path / "nowhere")
    with pytest.raises(SpecError, match=r"output\.uri: .* is the source, too"):
        relabel(lake / "out", lake / "out")
    with pytest.raises(SpecError, match=r"model\.name: .* is not the model that made the embeddings of .*: demo"):
        relabel(lake / "out", model=str(tiny_checkpoints["clip"]))
    with pytest.raises(SpecError, match=r"source\.keep_columns: those of the output are kept anyhow"):
        run(
            change_spec(
                _relabel(execution, lake / "out", tmp_path / "x", ["a", "b"]), {"source": {"keep_columns": "k"}}
            )
        )
    relabel(lake / "out", tmp_path / "bare")
    with pytest.raises(SpecError, match=r"bare has no embeddings, .* with --embeddings"):
        relabel(tmp_path / "bare")
    assert not (tmp_path / "x").exists()


class Deaf:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


def test_a_part_that_goes_meanwhile_is_a_row_that_the_next_run_drops(
    lake: Path, execution: Execution, tmp_path: Path
) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(lake / "out", origin)
    spec = _relabel(execution, origin, tmp_path / "out", ["circle", "square"])
    from zsic.pipeline.job import prepare

    job = prepare(spec)
    work = job.begin(job.listing, lambda text: None)
    assert work.plan is not None
    assert work.lease is not None
    slices = cut(job.output.store, work.plan, job.output.read_ledger(work.plan), images_per_slice=1)
    assert len(slices) == len(job.origin.snapshot.parts) > 1  # type: ignore[union-attr]
    gone = sorted(origin.glob("*.parquet"))[0]
    n_gone = pq.read_metadata(gone).num_rows
    gone.unlink()
    stage = Relabel(
        plan_store=job.output.store,
        origin_store=job.origin.store,  # type: ignore[union-attr]
        heads=find_heads(job.sets, job.top_ks, job.checkpoint),
        columns=job.find_heads().columns,
        keep_columns=(),
        embedding_dim=None,
        block_rows=16,
        reporter=Deaf(),  # type: ignore[arg-type]
        sight=Sight(job.output.store, ()),
    )
    blocks = list(stage({"slice": [json.dumps(asdict(each)) for each in slices]}))
    assert max(block.num_rows for block in blocks) == 16
    for number, block in enumerate(blocks):
        job.output.write_part(work.plan, block, {}, f"t-{number:06d}")
    again = pa.concat_tables(stage({"slice": [json.dumps(asdict(each)) for each in slices]}))
    assert again.equals(pa.concat_tables(blocks)), "a task that is run again gives the same rows"
    snapshot = job.output.publish(work.plan, "f")
    work.lease.end()
    assert snapshot.n_rows == N_IMAGES + 4 - n_gone + 1
    rows = read_table(tmp_path / "out").filter(pc.equal(pc.field("outcome"), "missing")).to_pylist()
    assert [(row["key"], row["label"], row["detail"]) for row in rows] == [
        (None, None, "the part has gone: a later snapshot does without it")
    ]


class TestHeads:
    """Of the same output, without Ray."""

    @pytest.fixture
    def truth(self, lake: Path) -> str:
        return str(lake / "shards" / "truth.csv")

    def test_compiled_ones_answer_as_their_labels_do(self, lake: Path, tmp_path: Path, truth: str) -> None:
        path = str(tmp_path / "head.safetensors")
        assert run_command(["labels", "compile", str(lake / "labels.yaml"), "-o", path]) == 0
        head = Head.load(path)
        assert head.digest == compile_labels(str(lake / "labels.yaml")).head.digest
        ours = Classifier("demo", path).labels
        assert ours == load_labels(LabelsSpec(path=str(lake / "labels.yaml"))).names

    def test_are_taken_by_a_run(self, lake: Path, execution: Execution, tmp_path: Path) -> None:
        path = tmp_path / "head.safetensors"
        compile_labels(str(lake / "labels.yaml")).head.save(path)
        run(_relabel(execution, lake / "out", tmp_path / "1", {"head": str(path)}))
        run(_relabel(execution, lake / "out", tmp_path / "2", {"path": str(lake / "labels.yaml")}))
        assert read_table(tmp_path / "1").equals(read_table(tmp_path / "2"))

    def test_of_another_model_are_refused(
        self, lake: Path, execution: Execution, tmp_path: Path, tiny_checkpoints: dict[str, Path]
    ) -> None:
        path = tmp_path / "head.safetensors"
        compile_labels("cat,dog", str(tiny_checkpoints["clip"])).head.save(path)
        with pytest.raises(ModelError, match=r"labels\.head: .* was compiled for a model with other weights"):
            run(_relabel(execution, lake / "out", tmp_path / "out", {"head": str(path)}))
        with pytest.raises(SpecError, match="has embeddings of another model"):
            adjust_shares(Head.load(path), on=str(lake / "out"))

    def test_learn_from_examples(self, lake: Path, truth: str) -> None:
        shapes = "circle,square,triangle,star,ring,cross,heart,arrow,hexagon,crescent,bolt,diamond"
        made = compile_labels(
            shapes, examples=str(lake / "out"), truth=load_truth(truth, label_column="shape"), templates="none"
        )
        assert made.examples is not None
        assert made.blended is not None
        assert len(made.examples.truth_N) == N_IMAGES
        assert made.blended.accuracy_after >= made.blended.accuracy_before
        if made.blended.weight:
            assert made.head.steps[-1]["step"] == "examples"

    def test_learn_from_folders(self, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        import tarfile

        with tarfile.open(lake / "shards" / "demo-00000.tar") as tar:
            pictures = [tar.extractfile(m).read() for m in tar if m.name.endswith((".jpg", ".png", ".webp"))]  # type: ignore[union-attr]
        for label, numbers in {"Red  Circle": (0, 1), "green ring": (2, 3), "unheard of": (4,)}.items():
            (tmp_path / "examples" / label).mkdir(parents=True)
            for number in numbers:
                (tmp_path / "examples" / label / f"{number}.jpg").write_bytes(pictures[number])
        (tmp_path / "examples" / "green ring" / "broken.jpg").write_bytes(b"no picture")
        out = str(tmp_path / "head.safetensors")
        command = ["labels", "compile", "red circle,green ring,star", "-o", out, "--examples", f"{tmp_path}/examples"]
        assert run_command([*command, "--weight", "0.5"]) == 0
        told = capsys.readouterr()
        assert "4 examples of 2 of 3 labels: words alone answer" in told.out
        assert "broken.jpg: not_an_image" in told.err
        assert "unheard of (1)" in told.err
        plain = compile_labels("red circle,green ring,star").head
        moved = Head.load(out)
        assert moved.digest != plain.digest
        assert (moved.matrix_CD != plain.matrix_CD).any(dim=1).tolist() == [True, True, False]
        assert run_command([*command[:-1], str(tmp_path)]) == 2
        assert "has no folder with pictures that is named as a label is" in capsys.readouterr().err

    def test_are_calibrated_and_reject(
        self, lake: Path, tmp_path: Path, truth: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = str(tmp_path / "head.safetensors")
        command = ["labels", "calibrate", str(lake / "all.txt"), "--on", str(lake / "out"), "--truth", truth, "-o", out]
        assert run_command([*command, "--false-reject", "0.1", "--by", "margin"]) == 0
        told = capsys.readouterr().out
        assert "expected calibration error" in told
        head, plain = Head.load(out), compile_labels(str(lake / "all.txt")).head
        made = calibrate(str(lake / "all.txt"), str(lake / "out"), load_truth(truth), false_reject=0.1, by="margin")
        assert made.head.digest == head.digest
        assert made.threshold is not None
        assert made.threshold.rejected <= 0.1
        assert made.calibration.loss_after <= made.calibration.loss_before
        assert head.scale == pytest.approx(plain.scale / made.calibration.temperature, rel=1e-4)
        assert head.rules.min_margin == pytest.approx(made.threshold.value, rel=1e-4)
        assert run_command([*command, "--by", "luck"]) == 2

    def test_of_several_labels_are_calibrated_label_by_label(
        self, lake: Path, tmp_path: Path, truth: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = ["red", "green", "blue", "circle", "square", "star", "unicorn"]
        (tmp_path / "several.yaml").write_text(f"mode: multi\nlabels: [{', '.join(names)}]\n")
        out = str(tmp_path / "head.safetensors")
        command = ["labels", "calibrate", f"{tmp_path}/several.yaml", "--on", f"{lake}/out", "-o", out]
        command += ["--truth", truth, "--label-column", "tags"]
        assert run_command([*command, "--precision", "0.9"]) == 0
        told = capsys.readouterr()
        assert "labels' own from" in told.out
        assert "and a shift a label" in told.out
        assert "left out, for they are no labels of the set" in told.err
        head, plain = Head.load(out), compile_labels(str(tmp_path / "several.yaml")).head
        tags = load_truth(truth, label_column="tags")
        made = calibrate(str(tmp_path / "several.yaml"), str(lake / "out"), tags, precision=0.9)
        assert made.head.digest == head.digest
        assert isinstance(made.rows, Tagged)
        assert len(made.rows.image_ND) == N_IMAGES, "an image of which no label is in the set is one, too"
        assert not made.rows.wanted_NC.any(axis=1).all()
        assert made.threshold is not None
        assert made.threshold.precision >= 0.9
        assert head.rules.threshold_C == pytest.approx((made.threshold.value,) * len(names), rel=1e-4)

        def f1(head: Head) -> float:
            fits = head.judge(torch.from_numpy(made.rows.image_ND), 1).fits
            assert fits is not None
            n_right = int(made.rows.wanted_NC[fits.image_P, fits.label_P].sum())  # type: ignore[union-attr]
            return 2 * n_right / (len(fits.label_P) + int(made.rows.wanted_NC.sum()))  # type: ignore[union-attr]

        learnt = calibrate(str(tmp_path / "several.yaml"), str(lake / "out"), tags).head
        assert f1(plain) < 0.6
        assert f1(learnt) > 0.8
        assert f1(head) > 0.8
        fits = learnt.judge(torch.from_numpy(made.rows.image_ND), 1).fits
        assert fits is not None
        assert names.index("unicorn") not in fits.label_P.tolist(), "no picture had it"

    def test_images_of_none_of_several_labels_are_learnt_from_too(self, lake: Path, tmp_path: Path, truth: str) -> None:
        names = ["red", "green", "star"]
        (tmp_path / "several.yaml").write_text(f"mode: multi\nlabels: [{', '.join(names)}]\n")
        with open(truth, encoding="utf-8", newline="") as file:
            rows = [(row["key"], row["tags"].split(";")) for row in csv.DictReader(file)]
        lists = tmp_path / "lists.jsonl"
        known = ({"key": key, "label": [tag for tag in tags if tag in names]} for key, tags in rows)
        lists.write_text("".join(json.dumps(each) + "\n" for each in known))
        of = {"lists": load_truth(str(lists)), "all": load_truth(truth, label_column="tags")}
        assert of["lists"].lists
        heads = {kind: calibrate(str(tmp_path / "several.yaml"), str(lake / "out"), each) for kind, each in of.items()}
        assert [len(each.rows.image_ND) for each in heads.values()] == [N_IMAGES, N_IMAGES]
        assert heads["lists"].calibration == heads["all"].calibration

    def test_of_a_tree_are_rejected_by_the_score_of_the_answer(self, lake: Path, tmp_path: Path, truth: str) -> None:
        colours: dict[str, list[str]] = {}
        for name in demo_labels():
            colours.setdefault(name.split()[0], []).append(name)
        tree = {"back_off": 0.9, "labels": [{"name": name, "children": each} for name, each in colours.items()]}
        (tmp_path / "tree.json").write_text(json.dumps(tree))
        made = calibrate(str(tmp_path / "tree.json"), str(lake / "out"), load_truth(truth), false_reject=0.2)
        assert isinstance(made.rows, Labelled)
        assert made.threshold is not None
        assert 0.1 < made.threshold.rejected <= 0.2
        free = replace(made.head, rules=replace(made.head.rules, min_score=None))
        verdicts = [each.judge(torch.from_numpy(made.rows.image_ND), 1) for each in (free, made.head)]
        kept_N = verdicts[1].answer_B != NONE
        assert torch.equal(kept_N, verdicts[0].score_B >= made.threshold.value)
        assert int(kept_N.sum()) == made.threshold.n_kept

    def test_synonyms_of_the_file_meet_the_truth(self, lake: Path, tmp_path: Path, truth: str) -> None:
        (tmp_path / "words.yaml").write_text("labels: [{name: crimson, synonyms: [red]}, green]\n")
        colours = load_truth(truth, label_column="colour")
        made = calibrate(str(tmp_path / "words.yaml"), str(lake / "out"), colours)
        assert isinstance(made.rows, Labelled)
        assert set(made.rows.truth_N.tolist()) == {0, 1}

    def test_of_several_labels_need_lists_and_scores(
        self, lake: Path, tmp_path: Path, truth: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "several.yaml").write_text("mode: multi\nlabels: [red circle, blue square]\n")
        out = str(tmp_path / "head.safetensors")
        command = ["labels", "calibrate", str(tmp_path / "several.yaml"), "--on", str(lake / "out"), "-o", out]
        assert run_command([*command, "--truth", truth]) == 2
        assert "this truth has one label an image" in capsys.readouterr().err
        assert run_command([*command, "--truth", truth, "--by", "margin"]) == 2
        assert "labels have a threshold of their score, and not of margin" in capsys.readouterr().err
        assert run_command([*command, "--truth", truth, "--false-reject", "0.1", "--precision", "0.9"]) == 2
        assert "either --false-reject or --precision" in capsys.readouterr().err

    def test_are_adjusted_to_shares(self, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = str(tmp_path / "head.safetensors")
        assert run_command(["labels", "adjust", "red,green,blue", "--on", str(lake / "out"), "-o", out]) == 0
        assert "share, estimated" in capsys.readouterr().out
        head = Head.load(out)
        shares = head.steps[-1]["shares"]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert np.asarray(head.offset_C) == pytest.approx(np.log(3 * np.array(shares)), abs=1e-3)
        # A head that is compiled is taken as it is, for stated shares, too.
        compile_labels("red,green").head.save(tmp_path / "plain.safetensors")
        stated = adjust_shares(str(tmp_path / "plain.safetensors"), shares={"red": 0.25, "green": 0.75})
        assert stated.head.labels == ("red", "green")
        with pytest.raises(SpecError, match="it is adjusted already"):
            adjust_shares(head, shares={"red": 0.5, "green": 0.25, "blue": 0.25})
        with pytest.raises(SpecError, match="they would be calibrated away"):
            calibrate(head, str(lake / "out"), load_truth(str(lake / "shards" / "truth.csv"), label_column="colour"))

    @pytest.mark.parametrize(
        ("shares", "message"),
        [
            ("red=0.5,blue=0.5", "'green' has none; give each of the 3 labels its share"),
            ("red=0.5,blue=0.25,green=0.25,pink=0", "'pink' is no label"),
            ("red=0.5,blue=0.25,green=0.5", "they add up to 1.25"),
            ("red=1,blue=0,green=0", "that of 'blue' is 0; it has to be above 0"),
            ("red", "'red' is no share of a label; write cat=0.7,dog=0.3"),
        ],
    )
    def test_bad_shares_are_named(
        self, shares: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = str(tmp_path / "head.safetensors")
        assert run_command(["labels", "adjust", "red,green,blue", "--shares", shares, "-o", out]) == 2
        assert message in capsys.readouterr().err

    def test_work_on_sigmoid_models_too(
        self, execution: Execution, lake: Path, tmp_path: Path, tiny_checkpoints: dict[str, Path], truth: str
    ) -> None:
        model = str(tiny_checkpoints["siglip"])
        run(_classify(execution, lake, tmp_path / "out", ["red", "green", "blue"], model=model))
        assert resolve(ModelSpec(name=model)).family.link == "sigmoid"
        on, colours = str(tmp_path / "out"), load_truth(truth, label_column="colour")
        learnt = compile_labels("red,green,blue", model, examples=on, truth=colours)
        made = calibrate(learnt.head, on, colours, false_reject=0.2)
        adjusted = adjust_shares(made.head, on=on)
        adjusted.head.save(tmp_path / "head.safetensors")
        assert adjusted.head.link == "sigmoid"
        assert made.calibration.intercept != 0
        run(
            _relabel(execution, Path(on), tmp_path / "other", {"head": str(tmp_path / "head.safetensors")}, model=model)
        )
        labels = read_table(tmp_path / "other")["label"].to_pylist()
        assert {None} < set(labels) <= {None, "red", "green", "blue"}
        (tmp_path / "multi.yaml").write_text("mode: multi\nlabels: {red: {threshold: 0.0}, green: {}, blue: {}}\n")
        run(_relabel(execution, Path(on), tmp_path / "multi", str(tmp_path / "multi.yaml"), model=model))
        table = read_table(tmp_path / "multi")
        assert all("red" in fits for fits in table["labels"].drop_null().to_pylist())
