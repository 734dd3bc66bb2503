"""What each way to say what a label is, is worth: on drawn pictures of pairs that the bundled model was never shown.

    python benchmarks/labels.py [--pictures 3000] [--write]

Pictures are encoded once; everything else is arithmetic on embeddings, by the functions that the commands call.  What
is fitted is fitted on the first half and judged on the second.  Shares have Wilson's 95 % intervals in brackets.  The
model is a toy that knows drawn shapes, and 24 of its 144 pairs of shape and colour are held out: what it says of a
method is how it works, and not how much it brings on photographs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from measure import machine, write_results

from zsic.core.labels import load_labels
from zsic.core.preprocess import fit
from zsic.core.reliability import Reliability
from zsic.core.spec import LabelsSpec, ModelSpec
from zsic.core.verdict import NONE
from zsic.demo.captions import WORDS
from zsic.demo.label_sets import labels, true_label
from zsic.demo.measure import pictures
from zsic.demo.scene import ATTRIBUTES, Scene
from zsic.evaluate.accuracy import Accuracy
from zsic.models.calibration import fit_platt, fit_temperature, threshold_for
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder, TextEncoder
from zsic.models.examples import blend_examples
from zsic.models.head import Head, adjust, compile_head
from zsic.models.heads import Heads
from zsic.models.refine import calibrated, rejecting, statistic, with_examples
from zsic.models.shares import estimate_shares

Table = list[str]

# Words that are in none of the captions, for four of the twelve shapes.
ODD = {"circle": "orb", "triangle": "wedge", "ring": "torus", "bolt": "zigzag"}
SEEN = {
    "circle": "A round shape without corners.",
    "triangle": "A shape with three corners.",
    "ring": "A round shape with a hole.",
    "bolt": "A lightning bolt.",
}


class Lab:
    """Pictures, what they show, and the text tower."""

    def __init__(self, n: int, work: Path) -> None:
        checkpoint = resolve(ModelSpec())
        self.work, self.text, encoder = work, TextEncoder(checkpoint), ImageEncoder(checkpoint)
        self.scenes: list[Scene] = []
        parts, pixels = [], []
        for scene, image in pictures(n, seed=20_261_127):
            self.scenes.append(scene)
            pixels.append(fit(image, encoder.geometry))
            if len(pixels) == 64 or len(self.scenes) == n:
                parts.append(encoder.encode(np.stack(pixels)))
                pixels = []
        self.image_ND = torch.cat(parts)
        self.encoder = encoder

    def head(self, text: str) -> Head:
        """Compile a label file in YAML."""
        path = self.work / "labels.yaml"
        path.write_text(text)
        return compile_head(load_labels(LabelsSpec(path=str(path))), self.text)

    def names(self, names: Sequence[str], *templates: str) -> Head:
        return compile_head(load_labels(LabelsSpec(names=tuple(names), templates=templates)), self.text)

    def truth(self, task: str, names: Sequence[str]) -> npt.NDArray[np.int64]:
        index = {name: at for at, name in enumerate(names)}
        return np.array([index[true_label(scene, task)] for scene in self.scenes])


def best(head: Head, image_ND: torch.Tensor) -> npt.NDArray[np.int64]:
    return head.rank(image_ND, 1).label_index_BK[:, 0].numpy().astype(np.int64)


def share(right_N: npt.NDArray[np.bool_]) -> str:
    return str(Accuracy(int(right_N.sum()), len(right_N)))


def words_table(lab: Lab) -> Table:
    """Templates, and words that the model does not know."""
    lines = [
        "## Words",
        "",
        "| prompts | colour and shape, 144 labels | count and shape, 48 | background, 8 |",
        "|---|---|---|---|",
    ]
    tasks = ("colour-shape", "count-shape", "background")
    for told, templates in (
        ("the label alone (`none`)", ("none",)),
        ("`simple`", ("simple",)),
        ("a photo of a {}.", ("a photo of a {}.",)),
        ("`imagenet7`", ("imagenet7",)),
        ("`imagenet80`", ("imagenet80",)),
    ):
        cells = [
            share(best(lab.names(labels(task), *templates), lab.image_ND) == lab.truth(task, labels(task)))
            for task in tasks
        ]
        lines.append(f"| {told} | {' | '.join(cells)} |")
    shapes = labels("shape")
    truth_N = lab.truth("shape", shapes)
    odd_N = np.isin(truth_N, [shapes.index(name) for name in ODD])
    entries = {name: {"name": ODD.get(name, name)} for name in shapes}

    def file(**more: dict[str, str]) -> str:
        rows = []
        for name in shapes:
            extra = "".join(f", {field}: '{values[name]}'" for field, values in more.items() if name in values)
            rows.append(f"- {{name: {entries[name]['name']}{extra}}}")
        return "templates: simple\nlabels:\n" + "\n".join(rows) + "\n"

    lines += ["", "Shapes, four of twelve named by words that the model does not know:", ""]
    lines += ["| label file | those four | all twelve |", "|---|---|---|"]
    for told, text in (
        ("known words", "templates: simple\nlabels:\n" + "".join(f"- {name}\n" for name in shapes)),
        ("odd words", file()),
        ("odd words, the known ones as `synonyms`", file(synonyms={name: name for name in ODD})),
        ("odd words with `descriptions`", file(descriptions=SEEN)),
        ("odd words with `context: a kind of shape`", "context: a kind of shape\n" + file()),
    ):
        right_N = best(lab.head(text), lab.image_ND) == truth_N
        lines.append(f"| {told} | {share(right_N[odd_N])} | {share(right_N)} |")
    return lines


def tree_table(lab: Lab) -> Table:
    """Back-off from `red circle` to `red`."""
    pairs = labels("colour-shape")
    colours = list(ATTRIBUTES["colour"])
    truth_N = lab.truth("colour-shape", pairs)
    lines = [
        "## Hierarchy",
        "",
        "Pairs of colour and shape, each below its colour, of pictures whose scores are half as sure (temperature 2):",
        "",
    ]
    lines += [
        "| a child needs | answered by the pair | right of those | answered by the colour | right of those | right in all |",
        "|---|---|---|---|---|---|",
    ]
    for need in (None, 0.3, 0.5, 0.7, 0.9):
        text = "" if need is None else f"back_off: {need}\n"
        groups = [
            f"- name: {colour}\n  children: [{', '.join(p for p in pairs if p.startswith(colour + ' '))}]\n"
            for colour in colours
        ]
        text += "labels:\n" + ("".join(groups) if need is not None else "".join(f"- {pair}\n" for pair in pairs))
        head = lab.head(text)
        from dataclasses import replace

        head = replace(head, scale=head.scale / 2)
        order = [head.labels.index(pair) for pair in pairs]
        true_N = np.array(order)[truth_N]
        answer_N = head.judge(lab.image_ND, 1).answer_B.numpy()
        leaf_N = answer_N < len(pairs)
        colour_N = np.array(
            [
                head.answers[a] == head.labels[t].split(" ")[0] if a >= len(pairs) else False
                for a, t in zip(answer_N, true_N, strict=True)
            ]
        )
        right_N = np.where(leaf_N, answer_N == true_N, colour_N)
        lines.append(
            f"| {need or 'no hierarchy'} | {leaf_N.mean():.1%} | {share(right_N[leaf_N])} | {(~leaf_N).mean():.1%} | {share(right_N[~leaf_N]) if (~leaf_N).any() else '-'} | {share(right_N)} |"
        )
    return lines


def reject_table(lab: Lab) -> Table:
    """Six shapes are known; pictures of the other six must get no label."""
    shapes = labels("shape")
    known = shapes[::2]
    truth_N = lab.truth("shape", shapes)
    inside_N = np.isin(truth_N, [shapes.index(name) for name in known])
    index = {shapes.index(name): at for at, name in enumerate(known)}
    label_N = np.array([index.get(t, -1) for t in truth_N.tolist()])
    half = len(truth_N) // 2
    head = lab.names(known, "simple")
    lines = [
        "## None of these",
        "",
        "Six of twelve shapes are labels.  Thresholds lose 5 % of right answers on one half, and are judged on the other:",
        "",
    ]
    lines += [
        "| rule | pictures of the six without a label | of those with one, right | pictures of others with a label |",
        "|---|---|---|---|",
    ]
    fit_N = inside_N[:half]

    def row(told: str, made: Head) -> str:
        answer_N = made.judge(lab.image_ND[half:], 1).answer_B.numpy()
        inside, true = inside_N[half:], label_N[half:]
        none_N = answer_N == NONE
        kept_N = inside & ~none_N
        return f"| {told} | {share(none_N[inside])} | {share(answer_N[kept_N] == true[kept_N])} | {share(~none_N[~inside])} |"

    lines.append(row("none", head))
    for by in ("score", "similarity", "margin"):
        value_N = statistic(head, lab.image_ND[:half][torch.from_numpy(fit_N)].numpy(), label_N[:half][fit_N], by)  # type: ignore[arg-type]
        lines.append(row(f"`min_{by}`, by `--false-reject 0.05`", rejecting(head, by, threshold_for(value_N, 0.05))))  # type: ignore[arg-type]
    for told, names in (
        ("something else", ["something else"]),
        ("words for what is there", ["thing", "object", "figure"]),
        ("the names of the others", shapes[1::2]),
    ):
        text = f"reject: {{background: [{', '.join(names)}]}}\nlabels: [{', '.join(known)}]\n"
        lines.append(row(f"`background`: {told}", lab.head(text)))
    return lines


def multi_table(lab: Lab) -> Table:
    """Colours, shapes and patterns as one set."""
    names = [WORDS[value][0] for task in ("colour", "shape", "pattern") for value in ATTRIBUTES[task]]
    true_NC = np.array(
        [[name in {WORDS[v][0] for v in scene.attributes().values()} for name in names] for scene in lab.scenes]
    )
    lines = [
        "## Several labels",
        "",
        "Colours, shapes and patterns as one set of `mode: multi` (three are true of each picture), on a softmax model:",
        "",
    ]
    lines += [
        "| negative | labels an image | precision | recall | average precision, mean of labels |",
        "|---|---|---|---|---|",
    ]
    for told, line in (
        ("default", ""),
        ("`not {}`", "negative: not {}\n"),
        ("`a photo.`", "negative: a photo.\n"),
        ("other shapes and colours", "negative: [thing, object, a shape, a picture of something]\n"),
    ):
        head = lab.head(f"mode: multi\n{line}templates: simple\nlabels: [{', '.join(names)}]\n")
        logit_NC = head.logits(lab.image_ND).numpy()
        fits_NC = logit_NC >= 0
        hit = int((fits_NC & true_NC).sum())
        precision, recall = share_of(hit, int(fits_NC.sum())), share_of(hit, int(true_NC.sum()))
        lines.append(
            f"| {told} | {fits_NC.sum(axis=1).mean():.1f} | {precision} | {recall} | {mean_average_precision(logit_NC, true_NC):.1%} |"
        )
    return lines


def share_of(n_right: int, n: int) -> str:
    return str(Accuracy(n_right, n))


def mean_average_precision(logit_NC: npt.NDArray[np.float32], true_NC: npt.NDArray[np.bool_]) -> float:
    found = []
    for logit_N, true_N in zip(logit_NC.T, true_NC.T, strict=True):
        hit_N = true_N[np.argsort(-logit_N, kind="stable")]
        if hit_N.any():
            found.append(float((np.cumsum(hit_N) / np.arange(1, len(hit_N) + 1))[hit_N].mean()))
    return float(np.mean(found))


def shares_table(lab: Lab) -> Table:
    """A mix in which labels are not equally common."""
    lines = ["## Shares", "", "Count and shape, drawn so that the n-th label has a share of 1/n, 1,000 pictures:", ""]
    names = labels("count-shape")
    truth_N = lab.truth("count-shape", names)
    order = Random(1).sample(range(len(names)), len(names))
    weight_C = np.zeros(len(names))
    weight_C[order] = 1 / np.arange(1, len(names) + 1)
    n_C = np.bincount(truth_N, minlength=len(names))
    weight_N = weight_C[truth_N] / np.maximum(n_C[truth_N], 1)
    at_N = np.random.default_rng(2).choice(len(truth_N), 1_000, p=weight_N / weight_N.sum())
    image_ND, true_N = lab.image_ND[at_N], truth_N[at_N]
    share_C = np.bincount(true_N, minlength=len(names)) / len(true_N)
    plain = lab.names(names, "simple")
    found = estimate_shares([plain.logits(image_ND).numpy()])
    counted_C = np.bincount(best(plain, image_ND), minlength=len(names)) / len(true_N)
    lines += ["| shares | right | error of the shares (total variation) |", "|---|---|---|"]
    for told, head, error in (
        ("taken as equal", plain, ""),
        ("counted from answers", None, f"{np.abs(counted_C - share_C).sum() / 2:.1%}"),
        (
            "estimated (`labels adjust --on`)",
            adjust(plain, found.share_C.tolist(), "x"),
            f"{np.abs(found.share_C - share_C).sum() / 2:.1%}",
        ),
        ("stated (`prior`)", adjust(plain, np.maximum(share_C, 1e-4).tolist(), "x"), "0.0%"),
    ):
        lines.append(f"| {told} | {'-' if head is None else share(best(head, image_ND) == true_N)} | {error} |")
    return lines


def examples_table(lab: Lab) -> Table:
    """Few-shot, on shapes of which four have odd names."""
    shapes = labels("shape")
    truth_N = lab.truth("shape", shapes)
    half = len(truth_N) // 2
    image_ND = lab.image_ND.numpy()
    heads = {
        "known words": lab.names(shapes, "simple"),
        "four of twelve odd words": lab.names([ODD.get(name, name) for name in shapes], "simple"),
    }
    counts = (1, 2, 4, 8, 16)
    lines = [
        "## Examples",
        "",
        "Shapes; top-1 of other pictures, mean and spread of five draws, the weight by leave-one-out:",
        "",
    ]
    lines += [
        "| words | no example | " + " | ".join(f"{n} each" for n in counts) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for told, head in heads.items():
        cells = [f"{(best(head, lab.image_ND[half:]) == truth_N[half:]).mean():.1%}"]
        for n in counts:
            found = []
            for seed in range(5):
                rng = np.random.default_rng(seed)
                at = np.concatenate(
                    [rng.permutation(np.flatnonzero(truth_N[:half] == c))[:n] for c in range(len(shapes))]
                )
                blended = blend_examples(head.matrix_CD.numpy(), image_ND[at], truth_N[at], scale=head.scale)
                moved = with_examples(head, blended, "")
                found.append(float((best(moved, lab.image_ND[half:]) == truth_N[half:]).mean()))
            cells.append(f"{np.mean(found):.1%} ± {100 * np.std(found):.1f}")
        lines.append(f"| {told} | {' | '.join(cells)} |")
    return lines


def calibration_table(lab: Lab) -> Table:
    """Temperatures learnt from so many rows."""
    lines = ["## Calibration", "", "Expected calibration error on the second half; fitted on rows of the first:", ""]
    counts = (50, 200, 1_000)
    lines += [
        "| head | as it is | " + " | ".join(f"{n:,} rows" for n in counts) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    half = len(lab.scenes) // 2
    pairs, shapes = labels("colour-shape"), labels("shape")
    from dataclasses import replace

    plain = lab.names(pairs, "simple")
    for told, head, truth_N in (
        ("colour and shape", plain, lab.truth("colour-shape", pairs)),
        ("the same, three times too sure", replace(plain, scale=3 * plain.scale), lab.truth("colour-shape", pairs)),
        ("shapes, four odd words", lab.names([ODD.get(n, n) for n in shapes], "simple"), lab.truth("shape", shapes)),
        ("colour and shape, sigmoid", replace(plain, link="sigmoid", bias=-10.0), lab.truth("colour-shape", pairs)),
    ):
        cells = [f"{error(head, lab.image_ND[half:], truth_N[half:]):.3f}"]
        for n in counts:
            fit_line: Any = fit_platt if head.scores_each else fit_temperature
            n = min(n, half)
            line = fit_line(head.logits(lab.image_ND[:n]).numpy(), truth_N[:n])
            cells.append(f"{error(calibrated(head, line), lab.image_ND[half:], truth_N[half:]):.3f}")
        lines.append(f"| {told} | {' | '.join(cells)} |")
    return lines


def error(head: Head, image_ND: torch.Tensor, truth_N: npt.NDArray[np.int64]) -> float:
    top = head.rank(image_ND, 1)
    right_N = top.label_index_BK[:, 0].numpy() == truth_N
    return Reliability.count(top.score_BK[:, 0].numpy(), right_N).error or 0.0


def sets_table(lab: Lab) -> Table:
    """What several sets cost beside the tower."""
    heads = [
        lab.names(labels(task), "simple") for task in ("colour-shape", "count-shape", "shape", "colour", "background")
    ]
    pixels_BHW3 = np.random.default_rng(0).integers(0, 256, (32, *lab.encoder.geometry.size, 3), np.uint8)
    lines = [
        "## Several sets in one pass",
        "",
        "CPU ms an image, of which the tower is the rest:",
        "",
        "| label sets | tower and heads | heads alone |",
        "|---|---|---|",
    ]
    for n in (1, 2, 5):
        many = Heads(tuple(heads[:n]), (5,) * n)
        image_BD = lab.encoder.encode(pixels_BHW3)
        spent = []
        for call in (lambda: many.judge(lab.encoder.encode(pixels_BHW3)), lambda: many.judge(image_BD)):  # noqa: B023
            taken = []
            for _ in range(15):
                started = time.process_time()
                call()
                taken.append(time.process_time() - started)
            spent.append(1e3 * float(np.median(taken)) / 32)
        lines.append(f"| {n} | {spent[0]:.3f} | {spent[1]:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3_000)
    parser.add_argument("--write", action="store_true", help="keep the tables under benchmarks/results")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="labels-bench-") as work:
        lab = Lab(options.pictures, Path(work))
        lines = [
            "# What each way to say what a label is, is worth",
            "",
            f"`benchmarks/labels.py --pictures {options.pictures}`; {machine()}.",
        ]
        for table in (
            words_table,
            tree_table,
            reject_table,
            multi_table,
            shares_table,
            examples_table,
            calibration_table,
            sets_table,
        ):
            lines += ["", *table(lab)]
    text = "\n".join([*lines, ""])
    print(text)
    if options.write:
        print(write_results("labels", text))
    if "## Words" not in text:
        sys.exit("nothing was measured")


if __name__ == "__main__":
    main()
