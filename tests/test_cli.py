"""The command line as a user meets it; no Ray."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from pydantic import BaseModel
from support.published import publish_job
from support.runs import LABELS, draw

from zsic.cli import run_command
from zsic.core.spec import JobSpec, LabelsSpec, make_spec

ROOT = Path(__file__).parent.parent

Told = Callable[..., tuple[int, str, str]]


def zsic(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(
        [sys.executable, "-m", "zsic", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb", **environment},
    )


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Told:
    """Run a command in this process, which is quicker: its exit code, and what it printed."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command([str(each) for each in arguments])
        return code, *capfd.readouterr()

    return run


def fields_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every field of the spec, as `decode.mode`."""
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields_of(kind, f"{prefix}{name}.")
        elif name == "labels":  # several, and each has these
            found |= fields_of(LabelsSpec, "labels.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_every_field_of_the_spec_is_a_flag_and_the_other_way_round() -> None:
    text = " ".join(zsic("classify", "--help").stdout.split())
    flags = set(re.findall(r"\(spec:[ │]*([a-z_0-9.]+)", text))
    positional_or_joined = {"source.uris", "labels.name", "labels.path", "labels.names"}
    assert flags - {"labels"} == fields_of(JobSpec) - positional_or_joined


@pytest.mark.parametrize(
    "command",
    [
        "",
        "classify",
        "run",
        "plan",
        "predict",
        "verify",
        "evaluate",
        "report",
        "export",
        "search",
        "demo",
        "labels check",
        "model pull",
    ],
)
def test_help_is_complete_and_light(command: str) -> None:
    code = f"""
import sys
from zsic.cli import main
sys.argv = ["zsic", *{command.split()!r}, "--help"]
try:
    main()
except SystemExit:
    pass
heavy = {{"ray", "torch", "transformers", "pyarrow", "pandas", "numpy", "pydantic"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert len(done.stdout.splitlines()) >= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classify", "photos"), "--labels is missing"),
        (("classify", "photos", "--labels", "a,b"), "--output is missing"),
        (("classify", "nowhere", "--labels", "a,b", "--output", "OUT"), "nowhere"),
        (("classify", "x", "--labels", "none.txt", "--output", "OUT"), "none.txt"),
        (("classify", "x", "--labels", "a", "--output", "OUT", "--decode-mode", "best"), "decode.mode"),
        (("classify", "x", "--labels", "a", "--output", "OUT", "--top-k", "9"), "scoring.top_k is 9 but labels has 1"),
        (("classify", "x", "--labels", "a", "--output", "OUT", "--model", "./none"), "model.name"),
        (("classify", "x", "--labels", "a", "--output", "OUT", "--template", "no place"), "labels.templates"),
        (("run", "none.yaml"), "none.yaml"),
        (("predict", "none.jpg", "--labels", "a,b"), "none.jpg"),
        (("verify", "OUT"), "snapshot"),
        (("evaluate", "OUT", "--truth", "folder"), "nothing is published"),
        (("labels", "check", "a,,a"), "'a'"),
        (("predict", "IMAGE", "--labels", "a,b", "--decode-mode", "foo"), "mode: input should be 'exact', 'pil' or"),
        (("predict", "IMAGE", "--labels", "HEAD", "--template", "a {}"), "has its prompts already"),
        (("classify", "x", "--head", "HEAD", "--template", "a {}", "--output", "OUT"), "--template is for --labels"),
        (("classify", "x", "--head", "heads/h1", "--output", "OUT"), "heads/h1 is not a head that zsic has saved"),
        (("classify", "x", "--labels", "colour=a,b", "--output", "OUT"), "one that is alone needs no name"),
        (("labels", "compile", "a,b", "-o", "OUT.safetensors", "--s3-endpoint-url", "http://u:p@h"), "credentials"),
        (("labels", "compile", "a,b", "-o", "OUT.safetensors", "--label-column", "x"), "--label-column is of --truth"),
        (("labels", "adjust", "HEAD", "-o", "OUT.safetensors", "--shares", "a=0.5,a=0.5"), "'a' is there twice"),
        (("labels", "adjust", "HEAD", "-o", "OUT.safetensors", "--shares", "a=1", "--model", "demo"), "leave it out"),
        (("labels", "calibrate", "a,b", "-o", "OUT.safetensors", "--on", "s3://k:s@b/x", "--truth", "folder"), "holds"),
        (
            ("labels", "calibrate", "a,b", "-o", "OUT.safetensors", "--on", "none", "--truth", "folder"),
            "none is no output",
        ),
    ],
)
def test_mistakes_are_explained_on_stderr_with_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, told: Told
) -> None:
    places = {name: str(tmp_path / name.lower()) for name in ("OUT", "IMAGE", "HEAD")}
    places |= {"OUT.safetensors": f"{places['OUT']}.safetensors", "HEAD": f"{places['HEAD']}.safetensors"}
    places["IMAGE"] += ".png"
    (tmp_path / "image.png").write_bytes(draw(1))
    if "HEAD" in arguments:
        assert told("labels", "compile", "a,b", "-o", places["HEAD"])[0] == 0
    code, out, err = told(*(places.get(each, each) for each in arguments))
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "out" / "_zsic" / "plan").exists()


def test_output_on_an_unproved_store_is_exit_code_5(tmp_path: Path, told: Told) -> None:
    (tmp_path / "a.jpg").write_bytes(draw(1))
    code, _, err = told("classify", tmp_path, "--labels", "a,b", "--output", "gs://bucket/out")
    assert code == 5
    assert "gs" in err


def test_another_jobs_output_is_exit_code_4(tmp_path: Path, told: Told) -> None:
    from zsic.core.spec import StoreSpec
    from zsic.storage.output import Output
    from zsic.storage.store import open_store

    (tmp_path / "a.jpg").write_bytes(draw(1))
    Output(open_store(str(tmp_path / "out"), StoreSpec())).claim({"model": {"digest": "other"}})
    code, _, err = told("classify", tmp_path, "--labels", "a,b", "--output", tmp_path / "out")
    assert code == 4
    assert "model.digest" in err


def test_plan_predicts_for_a_cluster_that_is_not_there(tmp_path: Path, told: Told) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.png").write_bytes(draw(number))
    arguments = (folder, "--labels", ",".join(LABELS), "--output", tmp_path / "out")
    flags = ("--sample", 20, "--cluster", "4x16cpu,2x8cpu1gpu", "--num-gpus", 1, "--price", 12)
    code, out, err = told("plan", *arguments, *flags)
    assert code == 0, err
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines()}
    assert lines["cluster"] == "cluster 6 nodes, 80 CPUs, 2 GPUs"
    assert "any of 6 nodes" in lines["decode"]
    assert "2 actors 2 nodes with GPUs" in lines["encode"]
    assert re.fullmatch(
        r"bound (CPU|network|GPU); images/s that each would allow: (\w+ [\d,]+(, )?){3}", lines["bound"]
    )
    assert "from 20 images of the source" in lines["time"]
    assert re.fullmatch(r"cost 0\.\d\d at 12\.00 an hour .*; [\d.]+ a million images", lines["cost"])
    assert not (tmp_path / "out").exists()

    _, out, _ = told("plan", *arguments)
    assert "bound" in out
    assert "cost" not in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sample", "0"), "--sample"),
        (("--price", "-1"), "--price"),
        (("--cluster", "many"), "--cluster: 'many' is no kind of node"),
        (("--cluster", "4cpu", "--num-cpus", "2"), "execution.num_cpus"),
        (("--cluster", "4x16cpu", "--num-gpus", "1"), "the cluster has 0 GPUs"),
    ],
)
def test_plan_says_what_is_wrong_with_what_it_is_asked(
    flags: tuple[str, ...], message: str, tmp_path: Path, told: Told
) -> None:
    (tmp_path / "a.png").write_bytes(draw(1))
    code, _, err = told("plan", tmp_path / "a.png", "--labels", "cat,dog", "--output", tmp_path / "out", *flags)
    assert code == 2
    assert message in err


def test_what_plan_is_asked_is_no_flag_of_classify(told: Told) -> None:
    code, _, err = told("classify", "x", "--labels", "a", "--output", "y", "--sample", "3")
    assert code == 2
    assert "--sample" in err


def test_predict_prints_a_table_and_json_of_the_pipeline(tmp_path: Path, told: Told) -> None:
    import transformers

    from zsic.demo import MODEL_PATH

    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for number, path in enumerate(paths):
        path.write_bytes(draw(2 * number + 1))
    code, out, err = told("predict", *paths, "--labels", ",".join(LABELS), "--top-k", 2)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["image", "rank", "label", "score"]
    assert [row[-4] if row[0] == str(path) else "" for row, path in zip(rows[1::2], paths, strict=True)] == ["1", "1"]

    _, out, _ = told("predict", *paths, "--labels", ",".join(LABELS), "--json", "--decode-mode", "pil")
    ours = json.loads(out)
    pipeline = transformers.pipeline("zero-shot-image-classification", model=str(MODEL_PATH))
    theirs = pipeline([str(path) for path in paths], candidate_labels=LABELS)
    for our, their in zip(ours, theirs, strict=True):
        assert [entry["label"] for entry in our] == [entry["label"] for entry in their]
        assert [entry["score"] for entry in our] == pytest.approx([entry["score"] for entry in their], abs=1e-5)
    _, out, _ = told("predict", paths[0], "--labels", ",".join(LABELS), "--json")
    assert set(json.loads(out)[0]) == {"label", "score"}


def test_predict_explains_its_answers_in_pictures(tmp_path: Path, told: Told) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(draw(2 + len(folder)))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    paths = (tmp_path / "one" / "a.jpg", tmp_path / "bad.png", tmp_path / "two" / "a.jpg")
    assert told("predict", *paths, "--labels", ",".join(LABELS), "--explain", tmp_path / "heat")[0] == 0
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == ["a-2.png", "a.png"]
    with Image.open(tmp_path / "heat" / "a.png") as drawn:
        assert drawn.mode == "RGB"
        assert min(drawn.size) >= 384
    command = ("predict", paths[0], "--labels", ",".join(LABELS), "--json")
    code, out, err = told(*command, "--explain", tmp_path / "x.png", "--explain-label", "white ring")
    assert (code, (tmp_path / "x.png").is_file()) == (0, True)
    assert "white ring of" in err
    assert len(json.loads(out)) == len(LABELS)  # what a pipe wants is as before
    # Beside the pictures themselves, which stay.
    png = tmp_path / "one" / "b.png"
    png.write_bytes(draw(5))
    assert told("predict", png, "--labels", ",".join(LABELS), "--explain", png.parent)[0] == 0
    assert png.read_bytes() == draw(5)
    assert (png.parent / "b-2.png").is_file()
    for more, message in (
        (("--explain-label", "cat"), "--explain-label needs --explain"),
        (("--explain", tmp_path / "y.png", "--explain-label", "cat"), "'cat' is none of the labels"),
        (("--explain", paths[0].with_suffix("")), None),
        (("--explain", paths[0]), "is the image itself"),
        (("--explain", tmp_path / "bad.png" / "x"), "--explain: "),
        ((tmp_path / "bad.png", "--explain", tmp_path / "z.png"), "is one file and there are 2 images"),
    ):
        code, _, err = told(*command, *more)
        assert code == (2 if message else 0), err
        assert message is None or message in err


def test_predict_tells_of_a_bad_image_and_answers_the_others(tmp_path: Path, told: Told) -> None:
    (tmp_path / "good.png").write_bytes(draw(1))
    (tmp_path / "bad.png").write_bytes(draw(1)[:200])
    code, out, err = told("predict", tmp_path / "bad.png", tmp_path / "good.png", "--labels", "cat,dog")
    assert code == 0
    assert "corrupt" in err
    assert "good.png" in "".join(out.split())
    assert told("predict", tmp_path / "bad.png", "--labels", "cat,dog")[0] == 2


def test_labels_check_shows_prompts_and_warns(tmp_path: Path, told: Told) -> None:
    (tmp_path / "labels.txt").write_text("red circle\nRed  circle\n" + "a very long label " * 30 + "\n")
    code, out, err = told("labels", "check", tmp_path / "labels.txt", "--template", "a photo of a {}.")
    assert code == 0, err
    assert "a photo of a red circle." in out
    assert "case or white space" in out
    assert "exceed the limit" in out
    (tmp_path / "several.yaml").write_text("mode: multi\nlabels: [red, {name: star, negative: 'not a {}'}]\n")
    _, out, _ = told("labels", "check", tmp_path / "several.yaml")
    shown = [" ".join(line.split()) for line in out.splitlines()]
    assert "against not a star 6" in shown
    assert "against This is a photo of something else. 13" in shown
    assert any(line.startswith("warning: 'red': no `threshold`") for line in shown)


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2Jevil.png"
    path.write_bytes(b"not an image")
    done = zsic("predict", path, "--labels", "cat,dog")
    assert done.returncode == 2
    assert "\x1b[2J" not in done.stdout + done.stderr
    assert "\\x1b[2J" in done.stderr


def test_public_names_are_what_can_be_imported() -> None:
    import zsic as package

    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018


def test_package_imports_in_milliseconds() -> None:
    code = "import sys, zsic; print(len({'ray', 'torch', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of pictures, and the output of a job that has classified them."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "source").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (60 * number, 90, 120)).save(folder / "source" / f"{number}.png")
    places = {name: str(folder / name) for name in ("source", "OUT")}
    publish_job(make_spec({"source": places["source"], "labels": ["a", "b"], "output": places["OUT"]}))
    return {**places, "IMAGE": str(folder / "source" / "0.png")}


HEAVY = {
    *("aiobotocore", "aiohttp", "av", "botocore", "deltalake", "duckdb", "fsspec", "huggingface_hub", "jinja2"),
    *("onnxruntime", "ray", "requests", "s3fs", "scipy", "sklearn", "sympy", "tokenizers", "torch", "torchvision"),
    "transformers",
}
"""Packages that take a tenth of a second to some seconds to import."""


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("labels schema", []),
        ("labels check a,b", ["tokenizers", "torch"]),
        ("classify source --labels a,b --output OUT", []),  # there is nothing to do
        ("verify OUT", []),
        ("evaluate OUT --truth folder", []),
    ],
)
def test_a_command_imports_what_it_needs(command: str, needed: list[str], finished: dict[str, str]) -> None:
    assert imported([finished.get(each, each) for each in command.split()]) == needed


def test_the_text_tower_is_needed_for_labels_that_are_new(finished: dict[str, str]) -> None:
    # Labels that no other test has left in the cache of heads.
    predict = ["predict", finished["IMAGE"], "--labels", f"red,{uuid.uuid4().hex}"]
    assert imported(predict) == ["tokenizers", "torch"]
    assert imported(predict) == ["torch"]


def imported(arguments: list[str]) -> list[str]:
    """The heavy packages that a command has imported when it ends."""
    code = f"""
import sys
from zsic.cli import run_command
code = run_command({arguments!r})
print("imported", *sorted({HEAVY!r} & set(sys.modules)))
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_what_writes_imports_no_torch() -> None:
    code = f"import sys, zsic.pipeline.sink; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) <= {"ray", "requests"}
