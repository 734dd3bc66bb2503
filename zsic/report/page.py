"""A report as one HTML file that needs nothing else: no server, no network, no other file.

What comes from data is escaped, and hidden characters are shown as the terminal shows them; the policy in the page's
head lets no browser load or run anything but what is in it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from zsic.core.outcome import Outcome
from zsic.core.terminal import printable
from zsic.evaluate import Evaluation, summary_rows
from zsic.report import charts
from zsic.report.cards import Card
from zsic.report.pictures import Picture
from zsic.report.report import Report
from zsic.report.runs import STAGES
from zsic.report.spread import Histogram
from zsic.report.survey import FAILED, KINDS

NO_LABEL = "none of these"
"""In place of the label of images that no label fits."""
MOST_LABELS = 1_000
"""Rows of the table of labels."""
MOST_SPREADS = 200
"""Labels that have histograms of their own."""
MOST_PROMPTS = 1_000
MOST_PAIRS = 100

_MEANINGS = {
    Outcome.EMPTY: "no bytes, or a shard without an image",
    Outcome.NOT_AN_IMAGE: "the bytes begin like no image",
    Outcome.UNSUPPORTED: "an image of a format or pixel type that is not decoded",
    Outcome.CORRUPT: "damaged, or cut short",
    Outcome.TOO_LARGE: "more bytes than decode.max_bytes",
    Outcome.TOO_MANY_PIXELS: "more pixels than decode.max_pixels",
    Outcome.DECODER_DIED: "it ended its decoder, or hung in it",
    Outcome.MISSING: "gone since it was listed",
    Outcome.FORBIDDEN: "the store refused to hand it out",
    Outcome.CHANGED: "not the version that was listed",
    Outcome.UNREACHABLE: "the store did not answer in time; later runs try again",
    Outcome.BAD_SHARD: "a shard, or its rest, that cannot be read",
    Outcome.NOT_FINITE: "the image tower returned NaN or infinity",
}


def render(report: Report) -> str:
    """Write the page."""
    environment = Environment(
        loader=PackageLoader("zsic.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "brief": _brief,
        "bytes": _bytes,
        "percent": _percent,
        "seconds": _seconds,
        "score": _score,
        "day": _day,
    }
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        report=report,
        survey=report.survey,
        evaluation=report.evaluation,
        no_label=NO_LABEL,
        kinds=[kind for kind in KINDS if any(kind in card.kinds for card in report.cards)],
        n_of_kind={kind: sum(kind in card.kinds for card in report.cards) for kind in KINDS},
        most_labels=MOST_LABELS,
        most_spreads=MOST_SPREADS,
        most_prompts=MOST_PROMPTS,
        most_pairs=MOST_PAIRS,
        meanings={str(name): text for name, text in _MEANINGS.items()},
        groups=_groups(report),
        shown_labels=[name for name, cards in _groups(report) if FAILED not in cards[0].kinds],
        failed=[card for card in report.cards if FAILED in card.kinds],
        spreads=_spreads(report),
        sparklines=_sparklines(report),
        labels_by_name={row.label: row for row in report.evaluation.per_label} if report.evaluation else {},
        quality=_quality(report.evaluation),
        runs=list(reversed(report.runs)),
        stages=STAGES,
        n_without_picture=_n_without_picture(report),
        style=Markup(_resource("page.css")),
        script=Markup(script),
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        data=_as_script_data(_data(report)),
    )


def _resource(name: str) -> str:
    return files("zsic.report").joinpath("templates", name).read_text(encoding="utf-8")


def _as_script_data(value: object) -> Markup:
    """Write JSON that no HTML parser takes for markup, whatever the texts in it."""
    text = json.dumps(_all_shown(value), ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _shown(value: object) -> object:
    """Make hidden characters visible; what the templates write themselves stays."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _all_shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _all_shown(each) for key, each in value.items()}
    return [_all_shown(each) for each in value] if isinstance(value, list | tuple) else value


def _data(report: Report) -> dict[str, Any]:
    """What the script needs, beside the page itself."""
    return {
        "cards": {str(card.id): _card_data(card, report.pictures.get(card.id, Picture())) for card in report.cards},
        "spreads": {
            name: {"low": each.low, "high": each.high, "n": each.n_CM[:MOST_SPREADS].tolist()}
            for name, each in _histograms(report).items()
        },
    }


def _card_data(card: Card, picture: Picture) -> dict[str, Any]:
    facts: list[tuple[str, str]] = [("uri", card.uri)]
    facts += [("key", card.key)] if card.key is not None else []
    facts += [("id", str(card.id)), ("outcome", card.outcome)]
    facts += [("detail", card.detail)] if card.detail else []
    facts += [("size", f"{card.width} x {card.height} pixels")] if card.width is not None else []
    facts += [("all that fit", ", ".join(card.labels))] if card.labels else []
    facts += [("path", " > ".join(card.path))] if card.path else []
    facts += [("truth", ", ".join(card.truth))] if card.truth is not None else []
    return {
        "facts": facts,
        "kept": [list(each) for each in card.kept],
        "predictions": [[each.label, each.score, each.similarity] for each in card.predictions],
        "truth": list(card.truth or ()),
        "large": picture.large,
        "maps": [list(each) for each in picture.maps],
    }


def _groups(report: Report) -> list[tuple[str, list[Card]]]:
    """The cards of each label in turn, then the failed ones of each outcome."""

    def group(card: Card) -> str:
        if FAILED in card.kinds:
            return f"failed: {card.outcome}"
        return NO_LABEL if card.label is None else card.label

    return [(name, list(cards)) for name, cards in groupby(report.cards, group)]


def _histograms(report: Report) -> dict[str, Histogram]:
    found = report.survey
    return {"score": found.scores, "margin": found.margins, "similarity": found.similarities}


def _spreads(report: Report) -> dict[str, list[charts.Bar]]:
    return {name: charts.bars(each.low, each.high, each.total_M.tolist()) for name, each in _histograms(report).items()}


def _sparklines(report: Report) -> list[str]:
    return [charts.sparkline(n_M) for n_M in report.survey.scores.n_CM[:MOST_SPREADS].tolist()]


def _quality(evaluation: Evaluation | None) -> dict[str, Any]:
    """Everything that needs a truth, as `zsic evaluate` counts it."""
    if evaluation is None:
        return {}
    calibration, coverage = evaluation.calibration, evaluation.coverage
    return {
        "rows": summary_rows(evaluation),
        "matrix": charts.matrix(evaluation),
        "reliability": charts.reliability(calibration) if calibration else [],
        "coverage": charts.coverage_line(coverage) if coverage else None,
    }


def _n_without_picture(report: Report) -> dict[str, int]:
    """Rows that could be read by the job and have no picture here, by the reason."""
    reasons: dict[str, int] = {}
    for card in report.cards:
        picture = report.pictures.get(card.id)
        if card.outcome == Outcome.OK and picture is not None and picture.small is None:
            reasons[picture.reason] = reasons.get(picture.reason, 0) + 1
    return dict(sorted(reasons.items(), key=lambda item: -item[1]))


def _count(n: float) -> str:
    return f"{n:,.0f}"


def _brief(n: float) -> str:
    """A number of at most five letters: 9,999, 66k, 1.2M."""
    for least, unit in ((1e6, "M"), (1e4, "k")):
        if n >= least:
            scaled = n / (1e3 if unit == "k" else 1e6)
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:,.0f}{unit}"
    return _count(n)


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.1f} TB"


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def _score(value: float | None) -> str:
    """Three decimals; of a score below that, one digit that says something: `4e-5`."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 or value <= 0 else f"{value:.0e}".replace("e-0", "e-")


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _day(moment: str) -> str:
    """The day and minute of a time as records write it."""
    return moment[:16].replace("T", " ")
