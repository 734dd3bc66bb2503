"""The page itself: what is text stays text, every chart has words beside it, and figures are those of `evaluate`."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from support.hostile import BIDI, BREAKOUT, IMAGE, LABELS, MARKER, Sample
from support.sample_output import Lake, plain

from zsic.core.outcome import Outcome
from zsic.core.spec import SourceSpec
from zsic.evaluate import evaluate, load_truth, summary_rows
from zsic.report import make_report, page, render

VOID = {"meta", "link", "input", "img", "br", "hr"}


@dataclass
class Element:
    tag: str
    attributes: Mapping[str, str | None]
    parent: "Element | None" = None
    children: list["Element"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, in no order."""
        return " ".join([*self.texts, *(child.text for child in self.children)])

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        """Elements below it."""
        found = [self] if self.tag == tag and attributes.items() <= self.attributes.items() else []
        return found + [each for child in self.children for each in child.all(tag, **attributes)]

    def by_id(self, name: str) -> "Element":
        (found,) = [each for each in self.everything() if each.attributes.get("id") == name]
        return found

    def everything(self) -> list["Element"]:
        return [self] + [each for child in self.children for each in child.everything()]


class Parser(HTMLParser):
    """Builds the tree, and fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self._open = self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice: {attrs}"
        made = Element(tag, dict(attrs), self._open)
        self._open.children.append(made)
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self._open = made

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data: str) -> None:
        self._open.texts.append(data)


def parse(text: str) -> Element:
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser._open is parser.root
    return parser.root


@pytest.fixture(scope="module")
def text(hostile: Sample) -> str:
    return render(hostile.report)


@pytest.fixture(scope="module")
def tree(text: str) -> Element:
    return parse(text)


def test_hostile_texts_are_text(tree: Element, text: str) -> None:
    assert len(tree.all("script")) == 2
    assert [each.attributes["src"] or "" for each in tree.all("img") if MARKER in str(each.attributes["src"])] == []
    for each in tree.everything():
        assert not any(name.startswith("on") for name in each.attributes), each.attributes
        assert each.tag not in ("b", "iframe", "object", "embed", "base") or MARKER not in each.text
    words = tree.all("main")[0].text
    for name in (BREAKOUT, IMAGE, LABELS[0], LABELS[2]):
        assert name in words
    # Jinja would have made 49 of it, and a browser <b> of the entity.
    assert "{{ 7 * 7 }} &lt;b&gt;" in words


def test_hidden_characters_are_shown(text: str) -> None:
    assert BIDI not in text
    assert "\u202e" not in text
    assert "\u0007" not in text
    assert r"cat\u202egpj.exe\x07" in text


def test_the_policy_lets_nothing_run_but_the_script_that_is_there(tree: Element, text: str) -> None:
    (policy,) = tree.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.strip().split(" ", 1) for rule in (policy.attributes["content"] or "").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    _, script = tree.all("script")
    digest = base64.b64encode(hashlib.sha256("".join(script.texts).encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    # It has to come before what it is to stop.
    assert text.index("Content-Security-Policy") < text.index("<style")


def test_nothing_is_asked_of_anybody(tree: Element) -> None:
    for each in tree.everything():
        for name in ("src", "href", "action", "srcset", "poster", "data", "formaction", "ping", "xlink:href"):
            value = each.attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/jpeg;base64,")), (each.tag, name, value)
        assert "url(" not in (each.attributes.get("style") or "")
    (style,) = tree.all("style")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_data_for_the_script_is_whole_and_holds_no_markup(tree: Element, hostile: Sample) -> None:
    (element,) = tree.all("script", type="application/json")
    written = "".join(element.texts)
    assert not set("<>&\u2028\u2029") & set(written)
    data = json.loads(written)
    assert set(data["cards"]) == {str(card.id) for card in hostile.report.cards}
    for card in hostile.report.cards:
        facts = dict(data["cards"][str(card.id)]["facts"])
        assert facts["uri"] == card.uri
        assert facts.get("key") == card.key
        assert facts["outcome"] == card.outcome
    kept = [dict(each["kept"]).get("caption") for each in data["cards"].values()]
    assert IMAGE in kept
    assert max(len(each or "") for each in kept) <= 400


def test_figures_of_quality_are_those_that_evaluate_prints(tree: Element, hostile: Sample) -> None:
    truth = load_truth(str(hostile.truth))
    expected = summary_rows(evaluate(str(hostile.folder / "*.parquet"), truth))
    table = tree.by_id("quality").all("table", **{"class": "facts"})[0]
    rows = [(row.all("th")[0].text, row.all("td")[0].text) for row in table.all("tr")]
    assert rows == expected
    top1 = dict(expected)["top-1"]
    tile = next(each for each in tree.all("div", **{"class": "tile main"}))
    assert tile.all("p", **{"class": "figure"})[0].text.strip() == re.sub(r" \(.*", "", top1)
    evaluation = hostile.report.evaluation
    assert evaluation is not None
    by_label = {row.label: row for row in evaluation.per_label}
    for row in tree.by_id("label-table").all("tbody")[0].all("tr"):
        name = row.all("bdi")[0].text.replace(r"\u202e", "\u202e").replace(r"\x07", "\x07")
        if name != page.NO_LABEL:
            assert row.all("td")[-4].text == f"{by_label[name].recall.n:,}"


def test_counts_are_those_of_the_snapshot(tree: Element, hostile: Sample) -> None:
    figures = [each.text.strip() for each in tree.all("p", **{"class": "figure"})]
    assert figures[0] == f"{hostile.report.snapshot.n_rows:,}"
    rows = tree.by_id("failures").all("table")[0].all("tbody")[0].all("tr")
    told = {row.all("th")[0].text: int(row.all("td")[0].text) for row in rows}
    assert told | {"ok": hostile.report.survey.n_ok} == hostile.report.snapshot.outcomes


def test_whoever_sees_no_chart_has_its_numbers(tree: Element) -> None:
    assert len(tree.all("svg", role="img")) >= 6
    for chart in tree.all("svg"):
        assert chart.attributes.get("aria-hidden") == "true" or chart.attributes.get("aria-label")
    for figure in tree.all("figure"):
        assert figure.all("figcaption")
        assert figure.all("table") or figure.all("ol") or figure.all("b")
    for image in tree.all("img"):
        assert (image.attributes.get("alt") or "").strip()
    for button in tree.all("button"):
        assert button.text.strip() or button.attributes.get("aria-label") or button.all("img")


def test_everything_can_be_reached_by_name_and_keyboard(tree: Element) -> None:
    ids = [each.attributes["id"] for each in tree.everything() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    for link in tree.all("a"):
        assert str(link.attributes["href"]).removeprefix("#") in ids
    for control in [*tree.all("input"), *tree.all("select")]:
        parent = control.parent
        assert parent is not None
        assert parent.tag == "label"
        assert parent.text.strip()
    for region in [each for each in tree.everything() if "scroll" in (each.attributes.get("class") or "").split()]:
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["role"] == "region"
        assert region.attributes["aria-label"]
    levels = [int(each.tag[1]) for each in tree.all("main")[0].everything() if re.fullmatch("h[1-6]", each.tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_without_a_truth_there_is_nothing_about_quality(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(plain((1, 2, 3)))
    lake = Lake(tmp_path / "out", SourceSpec(uris=(str(tmp_path / "a.png"),)), lambda row: [("cat", 0.5), ("dog", 0.5)])
    tree = parse(render(make_report(lake.publish())))
    assert not [each for each in tree.everything() if each.attributes.get("id") in ("quality", "prompts")]
    assert "Median score" in tree.text
    assert "None: every image could be read." in tree.by_id("failures").text


def test_an_output_of_failures_alone_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"<html>")
    lake = Lake(tmp_path / "out", SourceSpec(uris=(str(tmp_path / "a.png"),)), lambda row: [("cat", 0.5)])
    tree = parse(render(make_report(lake.publish())))
    assert "not_an_image" in tree.by_id("failures").text
    assert len(tree.all("li", **{"class": "card"})) == 1


def test_pictures_that_could_not_be_read_are_told_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(plain((1, 2, 3)))
    lake = Lake(tmp_path / "out", SourceSpec(uris=(str(tmp_path / "a.png"),)), lambda row: [("cat", 0.5)])
    store = lake.publish()
    (tmp_path / "a.png").unlink()
    tree = parse(render(make_report(store)))
    (note,) = tree.all("p", role="note")
    assert note.text.startswith("1 of the pictures could not be read again")
    assert "missing" in note.text
    assert not tree.all("img")
    assert "no picture" in tree.all("li", **{"class": "card"})[0].text


def test_the_same_report_is_the_same_page(hostile: Sample, text: str) -> None:
    assert render(replace(hostile.report)) == text


def test_every_outcome_is_explained() -> None:
    assert set(page._MEANINGS) == set(Outcome) - {Outcome.OK}
