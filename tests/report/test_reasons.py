"""Heat maps of mistakes, by the output's own model and prompts."""

import base64
import io
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from support.sample_output import Answer, Lake

from zsic.cli import run_command
from zsic.core.errors import ModelError, SpecError
from zsic.core.spec import ModelSpec, SourceSpec
from zsic.demo.drawing import draw
from zsic.demo.scene import sample
from zsic.evaluate import load_truth
from zsic.models.checkpoint import resolve
from zsic.report import make_report, render
from zsic.report.report import Report
from zsic.storage.rows import RawRow
from zsic.storage.store import Store

LABELS = ["red circle", "blue square", "green star"]
PROMPTS = [[f"This is a photo of {name}."] for name in LABELS]


def answer(row: RawRow) -> Answer:
    """The second picture is answered rightly, all others are not."""
    return [("red circle", 0.75), ("blue square", 0.25)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, and what they show."""
    folder = tmp_path_factory.mktemp("reasons")
    rng = Random(0)
    truth = ["key,label"]
    for number in range(4):
        draw(sample(rng), rng, (200, 160)).save(folder / f"{number}.png")
        truth.append(f"{number}.png,{'red circle' if number == 1 else 'blue square' if number else 'no label of ours'}")
    (folder / "truth.csv").write_text("\n".join(truth) + "\n")
    return folder


def publish(folder: Path, output: Path, *, digest: str | None = None, **metadata: object) -> Store:
    told = {"model": "demo", "revision": None, "prompts": PROMPTS, **metadata}
    source = SourceSpec(uris=(f"{folder}/*.png",))
    return Lake(output, source, answer, LABELS, metadata=told, digest=digest or resolve(ModelSpec()).digest).publish()


def report(folder: Path, store: Store) -> Report:
    return make_report(store, truth=load_truth(str(folder / "truth.csv")), explain=True)


def test_mistakes_have_a_map_of_the_answer_and_of_the_true_label(lake: Path, tmp_path: Path) -> None:
    made = report(lake, publish(lake, tmp_path / "out"))
    maps = {card.name: made.pictures[card.id].maps for card in made.cards}
    assert [label for label, _ in maps["2.png"]] == ["red circle", "blue square"]
    assert [label for label, _ in maps["0.png"]] == ["red circle"], "what is no label cannot be seen"
    assert maps["1.png"] == (), "it is right"
    (_, first), (_, second) = maps["2.png"]
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each.partition(",")[2])))) for each in (first, second)]
    assert max(drawn[0].shape) <= 420
    assert (drawn[0] != drawn[1]).any()
    text = render(made)
    cards = json.loads(text.split('type="application/json"')[1].partition(">")[2].partition("</script>")[0])["cards"]
    (found,) = [card for card in cards.values() if ["key", "2.png"] in card["facts"] or "2.png" in str(card["facts"])]
    assert [label for label, _ in found["maps"]] == ["red circle", "blue square"]


def test_without_the_wish_no_model_is_needed(lake: Path, tmp_path: Path) -> None:
    store = publish(lake, tmp_path / "out", model="./no-such-model", digest="0" * 64)
    made = make_report(store, truth=load_truth(str(lake / "truth.csv")))
    assert all(picture.maps == () for picture in made.pictures.values())


def test_what_cannot_be_explained_is_said(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError, match="--explain: the output does not tell its prompts"):
        report(lake, publish(lake, tmp_path / "1", prompts=None))
    with pytest.raises(ModelError, match="--explain: demo has other weights now"):
        report(lake, publish(lake, tmp_path / "2", digest="0" * 64))
    assert run_command(["report", str(tmp_path / "1"), "--explain", "-o", str(tmp_path / "page.html")]) == 2
    assert "--explain is of mistakes, which --truth tells" in capsys.readouterr().err
