"""What is counted of all rows, and which few are picked: held against plain Python over the same rows."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.sample_output import Answer, Lake, plain

from zsic.core.errors import SpecError
from zsic.core.schema import AnswerColumns
from zsic.core.spec import SourceSpec, StoreSpec
from zsic.evaluate import evaluate, load_truth
from zsic.evaluate.vocabulary import Vocabulary
from zsic.report.answer_table import AnswerTable
from zsic.report.cards import Card, read_cards
from zsic.report.survey import FAILED, LEAST_SURE, MISTAKE, RANDOM, SUREST, Judge, Survey, survey
from zsic.storage.rows import RawRow
from zsic.storage.store import open_store

LABELS = ("cat", "dog", "bird", "fish")
PICTURE = plain((10, 20, 30), (8, 6))


def answer(row: RawRow) -> Answer:
    """Make up an answer by the file's name: cats are frequent, fish never come, some are none of these."""
    rng = Random(row.uri.rpartition("/")[2])
    best = rng.choices(LABELS[:3], (6, 3, 1))[0]
    if rng.random() < 0.1:
        return [(best, 0.0), ("fish", 0.0)]
    score = 0.5 + round(rng.random(), 4) / 2
    return [(best, score), ("fish", 1 - score)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loose files, of which some are damaged, with an output and the truth about them."""
    made = tmp_path_factory.mktemp("survey")
    (made / "photos").mkdir()
    for number in range(120):
        (made / "photos" / f"{number:03d}.png").write_bytes(PICTURE if number % 10 else PICTURE[:45])
    (made / "photos" / "page.png").write_bytes(b"<html>")
    lake = Lake(made / "out", SourceSpec(uris=(str(made / "photos"),)), answer, LABELS, rows_per_part=17)
    lake.publish()
    with (made / "truth.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label"])
        for number in range(0, 120, 2):
            writer.writerow([f"{number:03d}.png", Random(number).choice(LABELS)])
    return made


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(sorted((folder / "out").glob("*.parquet"))).sort_by("id")
    return list(table.to_pylist())


def look(folder: Path, *, with_truth: bool = False, **changed: Any) -> tuple[Survey, list[Card]]:
    paths = sorted(map(str, (folder / "out").glob("*.parquet")))
    store = open_store(str(folder / "out"), StoreSpec())
    table = AnswerTable.open(store, None)
    truth = load_truth(str(folder / "truth.csv")) if with_truth else None
    evaluation = evaluate(paths, truth) if truth else None
    judge = Judge(Vocabulary(table.labels), truth)
    found = survey(table, judge, evaluation, **{"n_images": 30, "most_failed": 5, "seed": 0} | changed)
    return found, read_cards(table, judge, found)


def test_counts_are_those_of_the_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    found, _ = look(folder)
    ok = [row for row in rows if row["outcome"] == "ok"]
    assert found.n_rows == len(rows) == 121
    assert found.outcomes == dict(Counter(row["outcome"] for row in rows))
    assert found.n_ok == len(ok)
    n_of = Counter(row["label"] for row in ok)
    assert n_of[None] > 0
    assert {each.label: each.n for each in found.labels} == n_of
    # The most frequent first, and what no label fits last.
    assert [each.label for each in found.labels] == [*sorted(LABELS[:3], key=lambda name: -n_of[name]), None]
    assert (found.n_labels, found.unused) == (4, ("fish",))
    for each in found.labels[:-1]:
        mine = [row for row in ok if row["label"] == each.label]
        leads = [row["predictions"][0]["score"] - row["predictions"][1]["score"] for row in mine]
        assert each.mean_score == pytest.approx(mean(row["score"] for row in mine))
        assert each.mean_margin == pytest.approx(mean(leads), abs=1e-6)
    assert found.labels[-1].mean_score is None


def test_histograms_hold_every_row_once_in_the_order_of_the_labels(folder: Path, rows: list[dict[str, Any]]) -> None:
    found, _ = look(folder)
    n = [each.n for each in found.labels]
    assert found.scores.n_CM.sum(1).tolist() == [*n[:-1], 0]
    assert found.margins.n_CM.sum(1).tolist() == n
    assert found.similarities.n_CM.sum(1).tolist() == n
    scores = sorted(row["score"] for row in rows if row["score"] is not None)
    assert found.scores.low <= scores[0]
    assert found.scores.high >= scores[-1]
    assert found.score_quantiles[0.5] == pytest.approx(scores[(len(scores) - 1) // 2], rel=0.01)


def test_the_surest_and_the_least_sure_of_each_label_are_picked(folder: Path, rows: list[dict[str, Any]]) -> None:
    found, cards = look(folder)
    for name in LABELS[:3]:
        scores = [row["score"] for row in rows if row["label"] == name]
        mine = [card for card in cards if card.label == name]
        assert max(card.score or 0 for card in mine if SUREST in card.kinds) == max(scores)
        assert min(card.score or 1 for card in mine if LEAST_SURE in card.kinds) == min(scores)
        assert any(RANDOM in card.kinds for card in mine)
    assert sorted(card.id for card in cards) == sorted(found.picked)


def test_as_many_are_picked_as_are_asked_for_and_no_more(folder: Path) -> None:
    for n_images in (1, 3, 12, 30, 1000):
        _, cards = look(folder, with_truth=True, n_images=n_images)
        failed = [card for card in cards if FAILED in card.kinds]
        assert len(cards) - len(failed) <= n_images
        assert len(failed) == 5
        assert all(card.outcome != "ok" for card in failed)
    assert len({card.outcome for card in failed}) == 2


def test_the_same_rows_are_picked_however_they_lie_in_parts_and_by_another_seed_others(
    folder: Path, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "out", SourceSpec(uris=(str(folder / "photos"),)), answer, LABELS, rows_per_part=200)
    lake.publish()
    _, cards = look(folder)
    assert look(tmp_path)[1] == cards

    def drawn(seed: int) -> set[int]:
        return {card.id for card in look(folder, seed=seed)[1] if RANDOM in card.kinds}

    assert drawn(0) == drawn(0) != drawn(1)


def test_mistakes_are_answers_that_the_truth_denies(folder: Path, rows: list[dict[str, Any]]) -> None:
    truth = dict(list(csv.reader((folder / "truth.csv").open()))[1:])
    _, cards = look(folder, with_truth=True, n_images=400)
    name_of = {row["id"]: row["uri"].rpartition("/")[2] for row in rows}
    for card in cards:
        if card.outcome != "ok":
            assert card.is_right is None
            continue
        label = truth.get(name_of[card.id])
        assert card.truth == (None if label is None else (label,))
        assert card.is_right == (None if label is None else label == card.label)
        assert (MISTAKE in card.kinds) == (card.is_right is False)
    evaluation = evaluate(str(folder / "out" / "*.parquet"), load_truth(str(folder / "truth.csv")))
    n_wrong = evaluation.top1_of_ok.n - evaluation.top1_of_ok.n_right
    assert sum(card.is_right is False for card in cards) == n_wrong > 10
    assert not any(MISTAKE in kinds for kinds in look(folder)[0].picked.values())


def test_with_several_label_sets_one_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.png").write_bytes(PICTURE)

    def both(row: RawRow) -> dict[str | None, Answer]:
        return {"animal": [("cat", 0.9), ("dog", 0.1)], "sky": [("blue", 0.75), ("grey", 0.625)]}

    sets = (AnswerColumns("animal"), AnswerColumns("sky", has_labels=True))
    lake = Lake(tmp_path / "out", SourceSpec(uris=(str(tmp_path / "photos"),)), both, sets=sets)
    lake.metadata = {"labels": {"animal": ["cat", "dog"], "sky": ["blue", "grey"]}, "prompts": {"sky": [["b"], ["g"]]}}
    store = lake.publish()
    with pytest.raises(SpecError, match=r"--set is missing; .* has the label sets animal, sky"):
        AnswerTable.open(store, None)
    with pytest.raises(SpecError, match=r"--set is 'colour'; .* has the label sets animal, sky"):
        AnswerTable.open(store, "colour")
    table = AnswerTable.open(store, "sky")
    assert (table.labels, table.prompts, table.kept) == (["blue", "grey"], [["b"], ["g"]], [])
    judge = Judge(Vocabulary(table.labels), None)
    found = survey(table, judge, None, n_images=9, most_failed=9, seed=0)
    assert [(each.label, each.n) for each in found.labels] == [("blue", 4)]
    cards = read_cards(table, judge, found)
    assert {(card.label, card.score, card.labels) for card in cards} == {("blue", 0.75, ("blue", "grey"))}


@pytest.mark.parametrize("score", [0.004, 0.03, 0.4, 0.9])
def test_histograms_reach_as_far_as_scores_do(tmp_path: Path, score: float) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    only: Callable[[RawRow], Answer] = lambda row: [("cat", score)]  # noqa: E731
    Lake(tmp_path / "out", SourceSpec(uris=(str(tmp_path / "a.png"),)), only).publish()
    found, _ = look(tmp_path)
    width = (found.scores.high - found.scores.low) / found.scores.n_CM.shape[1]
    assert found.scores.low - width <= score <= found.scores.high + width
    assert width <= 0.11 * score
