import io
from pathlib import Path

import pytest
from PIL import Image

from zsic.core.decode import DecodeError
from zsic.core.errors import ModelError, SourceError, SpecError
from zsic.core.spec import DecodeSpec
from zsic.models.classifier import Classifier

LABELS = ["cat", "red circle", "house"]


@pytest.fixture(scope="module")
def classifier(tiny_checkpoint: Path) -> Classifier:
    return Classifier(str(tiny_checkpoint), LABELS, decode=DecodeSpec(mode="pil"))


def test_one_image_gives_a_list_and_a_list_gives_lists(
    classifier: Classifier, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    data = pictures["wide.jpg"]
    (tmp_path / "wide.jpg").write_bytes(data)
    answers = classifier.predict(data)
    assert sorted(answer["label"] for answer in answers) == sorted(LABELS)
    assert [answer["score"] for answer in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert sum(answer["score"] for answer in answers) == pytest.approx(1)
    picture = Image.open(io.BytesIO(data))
    for image in (tmp_path / "wide.jpg", str(tmp_path / "wide.jpg"), picture):
        assert classifier.predict(image) == answers
    assert classifier.predict([data]) == [answers]
    assert classifier.predict([]) == []


def test_many_images_keep_their_order(classifier: Classifier, pictures: dict[str, bytes]) -> None:
    many = list(pictures.values()) * 8  # more than one batch
    alone = [classifier.predict(data) for data in pictures.values()] * 8
    for got, expected in zip(classifier.predict(many), alone, strict=True):
        assert [a["label"] for a in got] == [a["label"] for a in expected]
        assert [a["score"] for a in got] == pytest.approx([a["score"] for a in expected], abs=1e-5)


def test_orientation_of_an_open_picture_is_obeyed(classifier: Classifier, pictures: dict[str, bytes]) -> None:
    upright = Image.open(io.BytesIO(pictures["tall.jpg"])).convert("RGB")
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    lying.save(stream, "PNG", exif=exif)
    turned = Image.open(stream)
    assert classifier.predict(turned) == classifier.predict(upright)
    assert classifier.predict(turned) != classifier.predict(lying)


def test_labels_and_templates_as_the_command_line_takes_them(
    tiny_checkpoint: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("cat\nred circle\nhouse\n")
    data = pictures["grey.jpg"]
    plain = Classifier(str(tiny_checkpoint), "cat, red circle,house")
    assert plain.labels == tuple(LABELS)
    answers = plain.predict(data)
    for labels, templates in (
        (str(tmp_path / "labels.txt"), ()),
        (LABELS, "This is a photo of {}."),
        (LABELS, ["simple"]),
    ):
        assert Classifier(str(tiny_checkpoint), labels, templates=templates).predict(data) == answers
    other = Classifier(str(tiny_checkpoint), LABELS, templates="imagenet7").predict(data)
    assert other != answers


def test_top_k(tiny_checkpoint: Path, pictures: dict[str, bytes], classifier: Classifier) -> None:
    two = Classifier(str(tiny_checkpoint), LABELS, top_k=2, decode=DecodeSpec(mode="pil"))
    assert two.predict(pictures["wide.jpg"]) == classifier.predict(pictures["wide.jpg"])[:2]
    for top_k in (0, 4):
        with pytest.raises(SpecError, match=f"top_k is {top_k} but labels has 3; use 1 to 3"):
            Classifier(str(tiny_checkpoint), LABELS, top_k=top_k)


def test_errors_name_the_cause(tiny_checkpoint: Path, classifier: Classifier) -> None:
    with pytest.raises(SpecError, match="holds no label"):
        Classifier(str(tiny_checkpoint), [])
    with pytest.raises(ModelError, match=r"no folder \./nowhere"):
        Classifier("./nowhere", LABELS)
    with pytest.raises(SourceError, match=r"no-such\.jpg: No such file"):
        classifier.predict("no-such.jpg")
    with pytest.raises(DecodeError):
        classifier.predict(b"not a picture")
