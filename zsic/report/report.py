"""Everything that a report says, collected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from zsic.core.spec import DecodeSpec, StoreSpec
from zsic.evaluate import Evaluation, Truth, evaluate
from zsic.evaluate.files import Filesystem
from zsic.evaluate.vocabulary import Vocabulary
from zsic.report.answer_table import AnswerTable
from zsic.report.cards import Card, read_cards
from zsic.report.pictures import Picture, read_pictures
from zsic.report.runs import Run, read_runs
from zsic.report.survey import FAILED, KINDS, Judge, Survey, survey
from zsic.storage.output import Output
from zsic.storage.snapshot import Snapshot, place_of
from zsic.storage.store import Store

N_IMAGES = 400
"""Pictures in a page: 4 to 15 MB with those to look at closely."""
N_FAILED = 40
N_LARGE = 120
"""Pictures to look at closely, about 40 kB each."""
N_CONFUSED = 20_000
"""Pairs of labels that the matrix knows; 100 are listed by name."""
BUDGET_S = 60.0
"""For reading pictures."""


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say about an output."""

    uri: str
    set_name: str | None
    snapshot: Snapshot
    facts: Mapping[str, Any]
    """What the footers of the parts say: model, revision, link, versions."""
    job: Mapping[str, Any]
    """What decided the answers."""
    survey: Survey
    cards: Sequence[Card]
    pictures: Mapping[int, Picture]
    runs: Sequence[Run]
    n_runs: int
    prompts: Sequence[tuple[str, Sequence[str]]]
    """Label and its prompts; none where the output does not tell them."""
    evaluation: Evaluation | None
    seed: int
    made: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def n_labels(self) -> int:
        """Labels of the set, answered or not; where the output does not tell, those that were answered."""
        sets = self.job.get("labels")
        for each in [sets] if isinstance(sets, Mapping) else sets or ():
            if self.set_name in (None, each.get("name")) and isinstance(each.get("n"), int):
                return int(each["n"])
        return self.survey.n_labels


def make_report(
    store: Store,
    *,
    truth: Truth | None = None,
    set_name: str | None = None,
    n_images: int = N_IMAGES,
    with_pictures: bool = True,
    explain: bool = False,
    budget_s: float = BUDGET_S,
    seed: int = 0,
    sources: StoreSpec | None = None,
    filesystem: Filesystem | None = None,
) -> Report:
    """Collect a report on the published rows of an output, in memory that does not grow with them.

    Reads the parts twice or, with a truth, three times, then the pictures of at most `n_images` rows, for at most
    `budget_s` seconds; `explain` loads the output's model for heat maps of mistakes.  `sources` says how images are
    reached; `filesystem` opens the parts for the evaluation, None is the local disk.  Raises `SpecError` when nothing
    is published, there is no such label set, or no row has a truth; and where `explain` cannot be, as `Reasons.of`.
    """
    table = AnswerTable.open(store, set_name)
    snapshot = table.table.snapshot
    labels = table.labels
    evaluation = None
    if truth is not None:
        paths = [f"{store.uri}/{place_of(store, part)}" for part in snapshot.parts]
        evaluation = evaluate(paths, truth, set_name=set_name, n_confused=N_CONFUSED, filesystem=filesystem)
    judge = Judge(Vocabulary(labels), truth)
    found = survey(table, judge, evaluation, n_images=n_images, most_failed=N_FAILED, seed=seed)
    cards = read_cards(table, judge, found)
    job: Mapping[str, Any] = Output(store).read_job() or {}
    runs, n_runs = read_runs(store)
    pictures: Mapping[int, Picture] = {}
    if with_pictures:
        reach, decode = sources or StoreSpec(), _decode_spec(job)
        reasons = None
        if explain:
            from zsic.report.reasons import Reasons  # loads torch

            reasons = Reasons.of(table, job, cards, decode, reach)
        pictures = read_pictures(cards, store, reach, decode, large=_large(cards), reasons=reasons, budget_s=budget_s)
    return Report(
        uri=store.uri,
        set_name=set_name,
        snapshot=snapshot,
        facts={name: table.told(name) for name in ("model", "revision", "link", "version")},
        job=job,
        survey=found,
        cards=cards,
        pictures=pictures,
        runs=runs,
        n_runs=n_runs,
        prompts=list(zip(labels or (), table.prompts or (), strict=False)),
        evaluation=evaluation,
        seed=seed,
    )


def _decode_spec(job: Mapping[str, Any]) -> DecodeSpec:
    """The limits of the job that read the images; those of zsic where it has none, since it read embeddings."""
    try:
        return DecodeSpec.model_validate(job.get("decode") or {})
    except ValueError:
        return DecodeSpec()


def _large(cards: Sequence[Card]) -> frozenset[int]:
    """Which pictures are worth a closer look: mistakes first, then what is least sure."""
    by_kind = sorted((card for card in cards if FAILED not in card.kinds), key=lambda card: KINDS.index(card.kinds[0]))
    return frozenset(card.id for card in by_kind[:N_LARGE])
