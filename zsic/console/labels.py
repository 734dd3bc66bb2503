"""`labels check`, `compile`, `calibrate`, `adjust` and `schema`: label sets before they cost anything."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsic.console.truth import find_truth
from zsic.console.words import err, out, show_table
from zsic.core.errors import SpecError
from zsic.core.spec import LabelsSpec, ModelSpec, StoreSpec, parse_labels
from zsic.core.terminal import printable
from zsic.core.wording import normalise

if TYPE_CHECKING:
    from zsic.models.examples import Blended
    from zsic.models.head import Head
    from zsic.models.refine import Statistic
    from zsic.pipeline.labelled import Known

_SHOWN = 20


def labels_spec(text: str, templates: Sequence[str]) -> LabelsSpec:
    """Read `--labels` and `--template`."""
    return LabelsSpec(**parse_labels(text), templates=tuple(templates))


def check_labels(labels: str, model: str, templates: Sequence[str]) -> None:
    """Print every prompt, then what is seldom meant."""
    from zsic.core.label_check import check_labels as find
    from zsic.core.labels import load_labels
    from zsic.models.checkpoint import resolve
    from zsic.models.encoder import TextEncoder
    from zsic.models.head import compile_head
    from zsic.models.refine import describe

    label_set = load_labels(labels_spec(labels, templates))
    encoder = TextEncoder(resolve(ModelSpec(name=model)))
    head = compile_head(label_set, encoder)
    contrasted = head.negative_ND is not None
    negatives = label_set.negatives() if contrasted else ((),) * len(label_set.names)
    for_all = negatives[0] if len(set(negatives)) == 1 else ()
    texts: list[tuple[str, str]] = []
    for name, prompts, against in zip(label_set.names, label_set.prompts(), negatives, strict=True):
        texts += [(name if number == 0 else "", prompt) for number, prompt in enumerate(prompts)]
        texts += [("  against", prompt) for prompt in against if not for_all]
    texts += [("all against", prompt) for prompt in for_all]
    rows = [(*text, encoder.count_tokens([text[1]])[0]) for text in texts]
    show_table(["label", "prompt as the model gets it", "tokens"], rows, right=(2,))
    findings = find(
        label_set,
        count_tokens=lambda prompt: encoder.count_tokens([prompt])[0],
        token_limit=encoder.token_limit,
        similarity_CC=(head.matrix_CD @ head.matrix_CD.T).numpy(),
        contrasted=contrasted,
    )
    out.print()
    out.print(f"{len(label_set.names):,} labels, {len(rows):,} prompts, at most {encoder.token_limit} tokens each")
    for name, value in describe(head):
        if name in ("mode", "hierarchy", "reject", "after that"):
            out.print(f"{name}: {value}", markup=False)
    for finding in findings:
        out.print(f"warning: {printable(finding.message)}", markup=False)
    if not findings:
        out.print("nothing to warn of")


def compile_labels(
    labels: str,
    model: str,
    output: Path,
    *,
    templates: Sequence[str],
    examples: str | None,
    truth: str | None,
    label_column: str | None,
    weight: float | None,
    s3_endpoint_url: str | None,
) -> None:
    """Write the head of a label set, moved towards examples where there are some."""
    from zsic.pipeline.heads import compile_labels as compile_them

    _require_ending(output)
    if examples is None and (truth is not None or weight is not None):
        raise SpecError("--truth and --weight are for --examples, which is missing")
    if label_column is not None and truth is None:
        raise SpecError("--label-column is of --truth, which is missing")
    made = compile_them(
        labels,
        model,
        templates=tuple(templates),
        examples=examples,
        truth=None if truth is None else find_truth(truth, label_column, s3_endpoint_url),
        weight=weight,
        store=StoreSpec(s3_endpoint_url=s3_endpoint_url),
    )
    if made.examples is not None and made.blended is not None:
        _tell_left_out(made.examples)
        _tell_gain(made.blended)
    _save(made.head, output)


def _tell_gain(blended: "Blended") -> None:
    n_C = blended.n_by_label_C
    out.print(
        f"{int(n_C.sum()):,} examples of {int((n_C > 0).sum()):,} of {len(n_C):,} labels: words alone answer "
        f"{blended.accuracy_before:.1%} of them rightly, with examples {blended.accuracy_after:.1%}, each "
        f"by the others (weight {blended.weight:g})"
    )
    if blended.hidden_before is not None and blended.hidden_after is not None:
        out.print(
            f"  labels that have none: {blended.hidden_before:.1%} by words alone, {blended.hidden_after:.1%} beside "
            "labels with examples; tried on each label as if it had none"
        )
    if blended.weight == 0:
        out.print("  examples gain nothing here: the head is that of the words")


def calibrate_labels(
    labels: str,
    output: Path,
    on: str,
    truth: str,
    *,
    label_column: str | None,
    model: str | None,
    false_reject: float | None,
    precision: float | None,
    by: "Statistic",
    s3_endpoint_url: str | None,
) -> None:
    """Fit a head's scores, and perhaps a threshold, to rows whose label is known."""
    from zsic.pipeline.heads import calibrate

    _require_ending(output)
    if false_reject is not None and precision is not None:
        raise SpecError("either --false-reject or --precision: there is one threshold")
    made = calibrate(
        labels,
        on,
        find_truth(truth, label_column, s3_endpoint_url),
        model=model,
        false_reject=false_reject,
        precision=precision,
        by=by,
        store=StoreSpec(s3_endpoint_url=s3_endpoint_url),
    )
    _tell_left_out(made.rows)
    found = made.calibration
    shift = f", shift {found.intercept:+.3g}" if found.intercept else ""
    if found.shifts:
        shift += f", labels' own from {min(found.shifts):+.3g} to {max(found.shifts):+.3g}"
    out.print(f"{found.n_rows:,} rows with a truth: temperature {found.temperature:.3g}{shift}")
    out.print(
        f"  expected calibration error {found.error_before:.3f} before, {found.error_after:.3f} after; "
        f"loss {found.loss_before:.3f}, {found.loss_after:.3f}"
    )
    if (threshold := made.threshold) is not None:
        out.print(
            f"  what has a {by} below {threshold.value:.4g} is no answer any more: that loses {threshold.rejected:.2%} "
            f"of {threshold.n_right:,} right answers, and of the {threshold.n_kept:,} that are kept "
            f"{threshold.precision:.2%} are right, on these rows"
        )
    _save(made.head, output)


def adjust_labels(
    labels: str, output: Path, on: str | None, shares: str | None, model: str | None, s3_endpoint_url: str | None
) -> None:
    """Adjust a head to the shares that its labels have: stated, or estimated from an output's embeddings."""
    from zsic.pipeline.heads import adjust_shares

    _require_ending(output)
    stated = None if shares is None else _parse_shares(shares)
    store = StoreSpec(s3_endpoint_url=s3_endpoint_url)
    made = adjust_shares(labels, on=on, shares=stated, model=model, store=store)
    if made.shares is not None and made.answered_C is not None:
        share_C = made.shares.share_C
        order = sorted(range(len(share_C)), key=lambda c: -share_C[c])
        rows = [(made.head.labels[c], f"{share_C[c]:.2%}", f"{made.answered_C[c]:.2%}") for c in order[:_SHOWN]]
        show_table(["label", "share, estimated", "share of answers before"], rows, right=(1, 2))
        if len(order) > _SHOWN:
            out.print(f"... and {len(order) - _SHOWN:,} labels with smaller shares", style="dim")
        unsettled = "" if made.shares.converged else ", which did not settle"
        out.print(f"estimated from {made.shares.n_rows:,} rows in {made.shares.n_iterations} rounds{unsettled}")
        out.print(
            "shares are as good as the scores are: calibrate first; where labels are equally common, adjust nothing",
            style="dim",
        )
    _save(made.head, output)


def show_schema() -> None:
    """Print the JSON schema of label files."""
    from zsic.core.label_form import json_schema

    print(json.dumps(json_schema(), indent=1))  # noqa: T201  To be redirected, and so without a width.


def _parse_shares(text: str) -> dict[str, float]:
    """Read `cat=0.7,dog=0.3`."""
    shares: dict[str, float] = {}
    for entry in text.split(","):
        name, found, value = entry.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            found = ""
        if not found:
            raise SpecError(f"--shares: {entry.strip()!r} is no share of a label; write cat=0.7,dog=0.3")
        name = normalise(name)
        if name in shares:
            raise SpecError(f"--shares: {name!r} is there twice")
        shares[name] = share
    return shares


def _tell_left_out(found: "Known") -> None:
    for path, why in found.failed.items():
        err.print(f"zsic: {printable(path)}: {printable(why)}", markup=False)
    if found.unknown:
        named = ", ".join(f"{printable(name)} ({n:,})" for name, n in list(found.unknown.items())[:5])
        more = " ..." if len(found.unknown) > 5 else ""
        err.print(f"left out, for they are no labels of the set: {named}{more}", markup=False)


def _require_ending(output: Path) -> None:
    from zsic.core.spec import HEAD_ENDING

    if output.suffix != HEAD_ENDING:
        raise SpecError(f"--output: {output} is to be a head, and so ends in {HEAD_ENDING}")


def _save(head: "Head", output: Path) -> None:
    from zsic.models.refine import describe

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        head.save(output)
    except OSError as error:
        raise SpecError(f"--output: {output}: {error.strerror}") from None
    show_table(["", ""], describe(head))
    out.print(f"use it with --head {printable(str(output))}", markup=False)
