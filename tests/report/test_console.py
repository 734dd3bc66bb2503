"""`zsic report` as a command: files it writes, words it prints, mistakes it explains."""

import base64
import re
import sys
from pathlib import Path

import pytest
from support.hostile import Sample
from support.place import Place
from support.sample_output import Answer, Lake, plain, write_parquet, write_tar

from zsic.cli import run_command
from zsic.core.spec import SourceSpec
from zsic.storage.rows import RawRow


def answer(row: RawRow) -> Answer:
    return [("cat", 0.75), ("dog", 0.25)]


@pytest.fixture
def out(tmp_path: Path) -> str:
    (tmp_path / "a.png").write_bytes(plain((1, 2, 3)))
    (tmp_path / "b.png").write_bytes(b"<html>")
    Lake(tmp_path / "out", SourceSpec(uris=(str(tmp_path / "*.png"),)), answer, ("cat", "dog")).publish()
    return str(tmp_path / "out")


def test_a_page_is_written_whole_and_nothing_else(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "pages" / "report.html"
    target.parent.mkdir()
    assert run_command(["report", out, "--output", str(target)]) == 0
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    told = capsys.readouterr()
    assert told.out.endswith("1 pictures; open it in any browser\n")
    assert told.err == ""
    (tmp_path / "a.png").unlink()
    assert run_command(["report", out, "-o", str(target), "--images", "1"]) == 0
    assert "1 of the pictures could not be read again; the page says why" in capsys.readouterr().err


def test_text_needs_no_file_and_says_what_is_there(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["report", out, "--text"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ok", "1", "50.0", "%"] in lines
    assert ["cat", "1", "100.0", "%", "0.750"] in lines
    assert ["b.png", "failed", "not_an_image", "-", "-", "-", "-"] in lines


def test_text_with_a_truth_has_the_figures_of_evaluate(hostile: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    folder, truth = str(hostile.folder), str(hostile.truth)
    assert run_command(["report", folder, "--text", "--truth", truth]) == 0
    text = capsys.readouterr().out
    assert "\u202e" not in text
    assert run_command(["evaluate", folder, "--truth", truth]) == 0
    figures = capsys.readouterr().out.split("\nlabel")[0].split()
    assert " ".join(figures) in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["OUT"], "--output is missing"),
        (["OUT", "-o", "/no/such/folder/r.html"], "/no/such/folder is no folder"),
        (["OUT", "-o", "TMP"], "is a folder; name the page to write"),
        (["TMP", "--text"], "nothing is published there yet"),
        (["OUT", "--text", "--set", "colour"], "has one label set, without a name"),
        (["OUT", "--text", "--truth", "TMP/none.csv"], "none.csv"),
        (["OUT", "--text", "--images", "0"], "--images"),
    ],
)
def test_mistakes_are_explained(
    out: str, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"OUT": out, "TMP": str(tmp_path / "empty")}
    changed = [re.sub("^(OUT|TMP)", lambda found: places[found[1]], each) for each in arguments]
    assert run_command(["report", *changed]) == 2
    assert message in capsys.readouterr().err


def test_output_and_pictures_may_be_in_a_bucket(place: Place, tmp_path: Path) -> None:
    place.put("photos/a.png", plain((200, 10, 10)))
    place.put("photos/s.tar", Path(write_tar(tmp_path / "s.tar", [("b.png", plain((10, 200, 10)))])).read_bytes())
    place.put("photos/p.parquet", Path(write_parquet(tmp_path / "p.parquet", [plain((10, 10, 200))])).read_bytes())
    lake = Lake(place.at("out"), SourceSpec(uris=(place.at("photos/"),)), answer, ("cat", "dog"), store=place.store)
    lake.publish()
    target = tmp_path / "report.html"
    endpoint = ["--s3-endpoint-url", place.store.s3_endpoint_url] if place.store.s3_endpoint_url else []
    assert run_command(["report", place.at("out"), "-o", str(target), *endpoint]) == 0
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', target.read_text())
    assert len({base64.b64decode(each) for each in pictures}) == 3


def test_no_ray_and_no_torch_are_needed() -> None:
    import subprocess

    code = "import sys, zsic.report; print([name for name in ('ray', 'torch', 'transformers') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
