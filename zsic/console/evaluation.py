"""`evaluate`: how right an output is, and how it differs from another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zsic.console.inspect import filesystem_of, open_output, refuse_credentials
from zsic.console.labels import labels_spec
from zsic.console.truth import find_truth
from zsic.console.words import out, show_json, show_table
from zsic.core.errors import SpecError

if TYPE_CHECKING:
    from zsic.core.labels import LabelSet
    from zsic.evaluate import Comparison, Evaluation

_SHOWN = 20
"""Labels in a table, if there are no more; else half of that, and JSON has all."""


def evaluate(
    output: str,
    truth: str | None,
    s3_endpoint_url: str | None,
    *,
    label_column: str | None = None,
    against: str | None = None,
    labels: str | None = None,
    set_name: str | None = None,
    against_set_name: str | None = None,
    parquet: str | None = None,
    as_json: bool = False,
) -> None:
    """Print how right an output is, or with `against` how it differs from another."""
    from zsic.evaluate import compare, synonyms_of, write_figures
    from zsic.evaluate import evaluate as evaluate_parts

    if truth is None and against is None:
        raise SpecError("--truth is missing: it says what the images show; or compare two outputs with --against")
    if against is None and against_set_name is not None:
        raise SpecError("--against-set is given without --against; the label set of the output itself is --set")
    if label_column is not None and truth is None:
        raise SpecError("--label-column is of --truth, which is missing")
    refuse_credentials(truth=truth, parquet=parquet)
    label_set = _load_labels(labels)
    names = None if label_set is None else label_set.names
    synonyms = None if label_set is None else synonyms_of(label_set.labels)
    parts = _parts(output, s3_endpoint_url)
    found = None if truth is None else find_truth(truth, label_column, s3_endpoint_url)
    filesystem = filesystem_of(output, s3_endpoint_url)
    result: Evaluation | Comparison
    if against is not None:
        result = compare(
            parts,
            _parts(against, s3_endpoint_url),
            found,
            labels=names,
            synonyms=synonyms,
            set_name=set_name,
            against_set_name=set_name if against_set_name is None else against_set_name,
            filesystem=filesystem,
            against_filesystem=filesystem_of(against, s3_endpoint_url),
        )
    else:
        assert found is not None
        result = evaluate_parts(parts, found, labels=names, synonyms=synonyms, set_name=set_name, filesystem=filesystem)
    if parquet is not None:
        write_figures(result, parquet, filesystem_of(parquet, s3_endpoint_url))
    if as_json:
        show_json(result.to_dict())
    else:
        _show(result)


def _load_labels(labels: str | None) -> "LabelSet | None":
    from zsic.core.labels import load_labels

    return None if labels is None else load_labels(labels_spec(labels, ()))


def _parts(output: str, s3_endpoint_url: str | None) -> list[str]:
    """The parts that are published.  Raises `SpecError` when there are none."""
    from zsic.storage.snapshot import last_snapshot, place_of

    store = open_output(output, s3_endpoint_url)
    snapshot = last_snapshot(store)
    if snapshot is None or not snapshot.parts:
        raise SpecError(f"{output}: nothing is published there yet; run `zsic classify` to its end first")
    return [f"{store.uri}/{place_of(store, part)}" for part in snapshot.parts]


def _show(result: "Evaluation | Comparison") -> None:
    from zsic.evaluate import Evaluation

    if isinstance(result, Evaluation):
        _show_evaluation(result)
    else:
        _show_comparison(result)


def _show_evaluation(evaluation: "Evaluation") -> None:
    from zsic.evaluate.summary import confused_rows, label_header, label_rows, summary_rows

    show_table(["", ""], summary_rows(evaluation))
    rows = label_rows(evaluation)
    shown = rows if len(rows) <= _SHOWN else rows[: _SHOWN // 2]
    _show_more(label_header(evaluation), shown, right=(1, 3, 4))
    if len(shown) < len(rows):
        out.print(f"... and {len(rows) - len(shown)} labels that do better; --json has all", style="dim")
    _show_more(("true", "answered", "images"), confused_rows(evaluation), right=(2,))


def _show_comparison(comparison: "Comparison") -> None:
    from zsic.evaluate.comparison_summary import change_rows, comparison_rows, label_change_rows

    show_table(["", ""], comparison_rows(comparison))
    _show_more(("other output", "this output", "images", "such as"), change_rows(comparison), right=(2,))
    _show_more(("label", "images", "gained", "lost", "points"), label_change_rows(comparison), right=(1, 2, 3))


def _show_more(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int]) -> None:
    if rows:
        out.print()
        show_table(header, rows, right=right)
