"""What each method of the label side is worth, on pictures that the bundled model's training never saw.

    python benchmarks/labels.py [--pictures 6000] [--cache FOLDER] [--write]

Pictures are drawn from a seed of their own and encoded once; all the rest is arithmetic on embeddings by the library's
own functions, without Ray.  Half of the pictures show a pair of shape and colour that is held out.  What is learnt
(examples, temperatures, thresholds, shares) is learnt on one half of the pictures and judged on the other.  Where it
says so, the pictures are `coarse`: shrunk to 16 pixels first.

Intervals are of 95 %: Wilson's for shares, of bootstraps over pictures for areas; `a ± b` is mean and standard
deviation over seeds.  All but the last section gives the same figures every time.

Shape legend: N pictures, C labels.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from drawn import Bools, Integers, World, make_world
from measure import machine, write_results
from sklearn.metrics import average_precision_score, roc_auc_score

from zsic.core.preprocess import fit
from zsic.core.reliability import Reliability
from zsic.core.spec import ModelSpec
from zsic.core.verdict import NONE
from zsic.demo.captions import WORDS
from zsic.demo.label_sets import labels as labels_of
from zsic.demo.measure import pictures
from zsic.demo.scene import COLOURS, PATTERNS, SHAPES
from zsic.evaluate import Accuracy, PairedAccuracy
from zsic.models.checkpoint import resolve
from zsic.models.encoder import ImageEncoder
from zsic.models.examples import blend_examples
from zsic.models.head import Head, adjust
from zsic.models.heads import Heads
from zsic.models.platt import SHIFT_SPREAD, fit_platt
from zsic.models.refine import calibrated, rejecting, statistic, with_examples
from zsic.models.shares import estimate_shares
from zsic.models.temperature import fit_temperature
from zsic.models.thresholds import threshold_for

NONSENSE = ("dax", "wug", "blicket", "toma", "zorp", "fep", "gazzer", "koba", "lorp", "modi", "nupa", "pilk")
"""Names of shapes that no caption had."""
LIKENESSES = (
    "A circle is a ring that is filled.",
    "A square is a diamond that lies on its side.",
    "A triangle is half of a square.",
    "A star is a circle with points.",
    "A heart is a triangle with two round shapes on it.",
    "A cross is a star with four points.",
    "A ring is a circle with a hole in it.",
    "A crescent is a ring with a gap.",
    "A diamond is a square that stands on its corner.",
    "A hexagon is a circle with six corners.",
    "An arrow is a triangle on a stick.",
    "A bolt is an arrow with a kink.",
)
"""Descriptions of shapes as a language model would write them, with words of other labels."""
MEANINGS = (
    "Every point of its edge is as far from the middle.",
    "It has four equal sides and four right angles.",
    "It has three sides.",
    "It has five long tips.",
    "It stands for love.",
    "Two bars go through one another.",
    "One can look through its middle.",
    "It is what is seen of it after new.",
    "It has four equal sides and stands on its tip.",
    "It has six equal sides.",
    "It shows the way.",
    "It comes before thunder.",
)
"""Descriptions of shapes with no word that captions had for any."""
FAMILIES = {
    "round": ("circle", "ring", "crescent", "hexagon"),
    "four-sided": ("square", "diamond"),
    "pointed": ("triangle", "star", "heart"),
    "made of bars": ("cross", "arrow", "bolt"),
}
CAPTIONS = ("a photo of a {}.", "a picture of a {}", "a drawing of {}", "it shows {}", "a rendering of a {}.")
"""Templates that training had."""

Lines = Iterator[str]
Scores = npt.NDArray[np.float32]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Lines:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""


def share(right_N: Bools) -> str:
    return str(Accuracy(int(right_N.sum()), len(right_N)))


def spread(values: Sequence[float], unit: float = 100) -> str:
    return f"{unit * statistics.mean(values):.1f} ± {unit * statistics.stdev(values):.1f}"


def answers(head: Head, image_ND: torch.Tensor) -> Integers:
    return head.judge(image_ND, 1).answer_B.numpy().astype(np.int64)


def right(head: Head, image_ND: torch.Tensor, truth_N: Integers) -> Bools:
    return answers(head, image_ND) == truth_N


def conditions(world: World) -> Iterator[tuple[str, World, torch.Tensor]]:
    """Pictures by name, and which embeddings are theirs."""
    held_out = world.only(world.held_out_N)
    yield "held-out pairs", held_out, held_out.clear_ND
    yield "all", world, world.clear_ND
    yield "all, coarse", world, world.coarse_ND


# --- 1. words


def measure_words(world: World) -> Lines:
    yield "## 1. Words"
    yield ""
    yield (
        "Gained and lost: pictures, all as drawn, that are right with this and not with `simple`, and the other way "
        "round; the difference is in points."
    )
    yield ""
    for task in ("shape", "colour-shape"):
        yield f"### {len(labels_of(task))} labels: {task}"
        yield ""
        truth_N = world.truth(task, labels_of(task))
        plain_N, rows = None, []
        for name, head in _wordings(world, task):
            right_N = right(head, world.clear_ND, truth_N)
            plain_N = right_N if plain_N is None else plain_N
            pair = PairedAccuracy(
                int((right_N & plain_N).sum()),
                int((right_N & ~plain_N).sum()),
                int((~right_N & plain_N).sum()),
                int((~right_N & ~plain_N).sum()),
            )
            low, high = pair.interval
            rows.append(
                (
                    name,
                    share(right_N[world.held_out_N]),
                    share(right_N),
                    share(right(head, world.coarse_ND, truth_N)),
                    f"{pair.n_gained} / {pair.n_lost}" if rows else "-",
                    f"{100 * (pair.difference or 0):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" if rows else "-",
                )
            )
        yield from table(["words", "held-out pairs", "all", "all, coarse", "gained / lost", "to `simple`"], rows)


def _wordings(world: World, task: str) -> Iterator[tuple[str, Head]]:
    names = labels_of(task)
    yield "`simple`: This is a photo of {}.", world.head(names)
    yield "`none`: the bare label", world.head(names, templates="none")
    yield "`imagenet7`", world.head(names, templates="imagenet7")
    yield "`imagenet80`", world.head(names, templates="imagenet80")
    yield "one template of training's captions, `a drawing of {}`", world.head(names, templates="a drawing of {}")
    yield f"{len(CAPTIONS)} templates of training's captions", world.head(names, templates=list(CAPTIONS))
    yield (
        "a template of words it does not know, `oil on canvas depicting {} by Rembrandt`",
        world.head(names, templates="oil on canvas depicting {} by Rembrandt"),
    )
    if task != "shape":
        yield "context `a type of shape`", world.head(names, context="a type of shape")
        return
    known = [{"name": name, "synonyms": WORDS[name][1:]} for name in names]
    unknown = [{"name": name, "synonyms": other} for name, other in zip(names, NONSENSE, strict=True)]
    swapped = [{"name": name, "prompts": f"This is a photo of {WORDS[name][-1]}."} for name in names]
    rescued = [{"name": other, "synonyms": WORDS[name][1]} for name, other in zip(names, NONSENSE, strict=True)]
    yield "with all synonyms that captions had (disc, rhombus)", world.head(known)
    yield "one synonym in place of each label (disk for circle)", world.head(swapped)
    yield "with a synonym that it does not know (circle, dax)", world.head(unknown)
    yield "names that it does not know (dax)", world.head(NONSENSE)
    yield "the same with a synonym that it knows (dax, disc)", world.head(rescued)
    yield "context that it knows, `a type of shape`", world.head(names, context="a type of shape")
    yield "context that it does not, `a piece of confectionery`", world.head(names, context="a piece of confectionery")
    sentences = tuple(f"There is a {WORDS[name][-1]} in the picture." for name in names)
    for what, texts in (
        ("words that captions had", sentences),
        ("no label's words", MEANINGS),
        ("words of other labels too", LIKENESSES),
    ):
        described = [{"name": name, "descriptions": text} for name, text in zip(names, texts, strict=True)]
        alone = [{"name": name, "prompts": text} for name, text in zip(names, texts, strict=True)]
        yield f"with a description, {what}", world.head(described)
        yield f"a description alone, {what}", world.head(alone)


# --- 2. hierarchy


def measure_hierarchy(world: World) -> Lines:
    yield "## 2. Labels with children: `back_off`"
    yield ""
    yield (
        "`right`: the answer is the true label or above it.  Of the answers at each level: their share, and how many "
        "of them are right.  `leaves only`: the flat set, and how often what is above its answer is right."
    )
    yield ""
    families = [{"name": name, "children": members} for name, members in FAMILIES.items()]
    colours = [
        {"name": colour, "children": [name for name in labels_of() if name.startswith(f"{colour} ")]}
        for colour in COLOURS
    ]
    yield from _hierarchy(world, "12 shapes in 4 families (round: circle, ring, ...)", "shape", families)
    yield from _hierarchy(world, "144 labels in 12 colours (red: red circle, ...)", "colour-shape", colours)


def _hierarchy(world: World, title: str, task: str, tree: list[dict[str, object]]) -> Lines:
    for condition, part, image_ND in conditions(world):
        yield f"### {title}, {condition}"
        yield ""
        head = world.head(tree)
        truth_N = part.truth(task, head.labels)
        assert head.tree is not None
        paths = head.tree.paths
        flat_N = answers(replace(head, rules=replace(head.rules, parents_C=(), back_off=None)), image_ND)
        above = [paths[flat][0] == paths[true][0] for flat, true in zip(flat_N, truth_N, strict=True)]
        rows = [
            ("leaves only", share(flat_N == truth_N), "100.0 %", share(flat_N == truth_N), "-", share(np.array(above)))
        ]
        for back_off in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
            answer_N = answers(replace(head, rules=replace(head.rules, back_off=back_off)), image_ND)
            leaf_N = answer_N < len(head.labels)
            right_N = np.array(
                [head.answers[answer] in paths[true] for answer, true in zip(answer_N, truth_N, strict=True)]
            )
            rows.append(
                (
                    f"{back_off:g}",
                    share(right_N),
                    f"{100 * leaf_N.mean():.1f} %",
                    share(right_N[leaf_N]),
                    f"{100 * (~leaf_N).mean():.1f} %",
                    share(right_N[~leaf_N]),
                )
            )
        yield from table(
            ["back_off", "right", "answers: labels", "right of them", "answers: above", "right of them"], rows
        )


# --- 3. rejection


def measure_rejection(world: World) -> Lines:
    yield "## 3. None of these: `reject`"
    yield ""
    yield (
        "Labels are 8 of the 12 shapes, and pictures of the other 4 are to get none; three rounds, so that each shape "
        "is left out once.  Thresholds are learnt on one half, to lose 5 % of right answers (`--false-reject 0.05`).  "
        "On the other half, lost: pictures of the labels that get none; taken in: pictures of other shapes that get a "
        "label.  AUROC is of the figure itself, without a threshold."
    )
    yield ""
    for condition, part, image_ND in conditions(world):
        yield f"### {condition}"
        yield ""
        rows = [_reject(part, image_ND, name, background, by) for name, background, by in _REJECTIONS]
        yield from table(["by", "AUROC", "lost", "taken in", "right of the labelled pictures that get a label"], rows)


_REJECTIONS = (
    ("`score`", (), "score"),
    ("`similarity`", (), "similarity"),
    ("`margin`", (), "margin"),
    ("background `something else`, no threshold", ("something else",), None),
    (
        "background `shape, thing, object, figure` (words of captions), no threshold",
        ("shape", "thing", "object", "figure"),
        None,
    ),
    ("the same, and `score`", ("shape", "thing", "object", "figure"), "score"),
    ("background names the other shapes, no threshold", "others", None),
)


def _reject(
    world: World, image_ND: torch.Tensor, name: str, background: Sequence[str] | str, by: str | None
) -> tuple[str, ...]:
    judged_N = ~world.learn_N
    kept, known, aurocs = [], [], []
    correct = []
    for fold in range(3):
        labels = [shape for at, shape in enumerate(SHAPES) if at % 3 != fold]
        others = [shape for at, shape in enumerate(SHAPES) if at % 3 == fold]
        names = others if background == "others" else list(background)
        head = world.head(labels, **({"reject": {"background": names}} if names else {}))
        truth_N = world.truth("shape", labels)
        figure_N = _figure(head, image_ND, by or "score", len(labels))
        if by is not None:
            learn_N = world.learn_N & (truth_N >= 0)
            learnt = statistic(head, image_ND[learn_N].numpy(), truth_N[learn_N], by)
            head = rejecting(head, by, threshold_for(*learnt, 0.05))
        answer_N = answers(head, image_ND)
        kept.append((answer_N != NONE)[judged_N])
        known.append((truth_N >= 0)[judged_N])
        correct.append((answer_N == truth_N)[judged_N])
        aurocs.append((known[-1], figure_N[judged_N]))
    kept_M, known_M, right_M = (np.concatenate(each) for each in (kept, known, correct))
    # Each picture is of the labels twice, and that is not two pictures.
    n_lost, n_known = int((~kept_M & known_M).sum()), int(known_M.sum())
    lost = Accuracy(round(n_lost / 2), n_known // 2)
    return (
        name,
        _area(aurocs),
        str(lost),
        share(kept_M[~known_M]),
        f"{100 * right_M[kept_M & known_M].mean():.1f} %",
    )


def _figure(head: Head, image_ND: torch.Tensor, by: str, n_labels: int) -> npt.NDArray[np.float64]:
    """What is high where a picture shows a label: score, similarity or margin of the best one that is no background."""
    top = head.rank(image_ND, len(head.labels))
    score_NC = np.zeros((len(image_ND), len(head.labels)))
    similarity_NC = np.zeros_like(score_NC)
    np.put_along_axis(score_NC, top.label_index_BK.numpy().astype(np.int64), top.score_BK.numpy(), 1)
    np.put_along_axis(similarity_NC, top.label_index_BK.numpy().astype(np.int64), top.similarity_BK.numpy(), 1)
    score_NC, similarity_NC = score_NC[:, :n_labels], similarity_NC[:, :n_labels]
    if by == "similarity":
        return similarity_NC.max(axis=1)
    best_N2 = np.sort(score_NC, axis=1)[:, :-3:-1]
    return best_N2[:, 0] - best_N2[:, 1] if by == "margin" else best_N2[:, 0]


def _area(folds: Sequence[tuple[Bools, npt.NDArray[np.float64]]], n_replicates: int = 200) -> str:
    """Mean over the folds, with the interval over pictures."""
    rng, n = np.random.default_rng(0), len(folds[0][0])
    value = statistics.mean(roc_auc_score(*fold) for fold in folds)
    drawn = (rng.integers(n, size=n) for _ in range(n_replicates))
    found = [statistics.mean(roc_auc_score(known_N[at], x_N[at]) for known_N, x_N in folds) for at in drawn]
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


# --- 4. several labels an image


FEW = 50
"""Pictures that somebody labels in a quarter of an hour."""
_ASPECTS = {"colour": tuple(COLOURS), "shape": SHAPES, "pattern": PATTERNS}


def measure_multi(world: World) -> Lines:
    yield "## 4. Several labels an image: `mode: multi` on a softmax model"
    yield ""
    yield (
        "One set of 28 labels: 12 colours, 12 shapes, 4 patterns; three are true of each picture.  mAP is the mean of "
        "the labels' average precision; precision and recall are over all labels of all pictures.  Calibrated: as "
        "`labels calibrate` does, by a line and a shift a label, on some pictures of the half to learn from, drawn ten "
        "times, or on all of them.  Own thresholds are those of the best F1 of each label on all of that half."
    )
    yield ""
    names = [name for values in _ASPECTS.values() for name in values]
    for condition, part, image_ND in conditions(world):
        yield f"### {condition}"
        yield ""
        wanted_NC = np.array([[name in scene.attributes().values() for name in names] for scene in part.scenes])
        rows = [*_multi_rows(part, image_ND, names, wanted_NC)]
        yield from table(["set", "mAP", "precision", "recall", "all three right and nothing else"], rows)


def _multi_rows(world: World, image_ND: torch.Tensor, names: list[str], wanted_NC: Bools) -> Iterator[tuple[str, ...]]:
    learn_N = np.flatnonzero(world.learn_N)
    siblings = {name: [other for other in values if other != name] for values in _ASPECTS.values() for name in values}
    contrasted = [
        {"name": name, "negative": [f"This is a photo of {other}." for other in siblings[name]]} for name in names
    ]
    heads = {
        "the default negative, `This is a photo of something else.`": world.head(names, mode="multi"),
        "each label's negatives name the others of its kind": world.head(contrasted, mode="multi"),
    }
    for name, head in heads.items():
        logit_NC = head.logits(image_ND).numpy()
        score_NC = head.logits(image_ND).sigmoid().numpy()
        yield _multi_row(world, f"{name}, 0.5", score_NC, wanted_NC, np.full(len(names), 0.5))
        own_C = np.array([_best_f1(score_NC[learn_N, c], wanted_NC[learn_N, c]) for c in range(len(names))])
        yield _multi_row(world, f"{name}, own thresholds", score_NC, wanted_NC, own_C)
        rng = np.random.default_rng(0)
        draws = [rng.permutation(learn_N)[:FEW] for _ in range(10)]
        learnt = [calibrated(head, fit_platt(logit_NC[at], wanted_NC[at], shift_spread=SHIFT_SPREAD)) for at in draws]
        yield _mean_multi_row(world, f"{name}, calibrated on {FEW}", learnt, image_ND, wanted_NC)
        whole = calibrated(head, fit_platt(logit_NC[learn_N], wanted_NC[learn_N], shift_spread=SHIFT_SPREAD))
        calibrated_NC = whole.logits(image_ND).sigmoid().numpy()
        title = f"{name}, calibrated on {len(learn_N):,}"
        yield _multi_row(world, title, calibrated_NC, wanted_NC, np.full(len(names), 0.5))
    scores = [world.head(values).logits(image_ND).softmax(dim=1).numpy() for values in _ASPECTS.values()]
    best = [score_NC.max(axis=1, keepdims=True).repeat(score_NC.shape[1], axis=1) for score_NC in scores]
    yield _multi_row(
        world,
        "for comparison: the answers of three single sets",
        np.concatenate(scores, axis=1),
        wanted_NC,
        np.concatenate(best, axis=1),
    )


def _multi_row(
    world: World, name: str, score_NC: Scores, wanted_NC: Bools, need: npt.NDArray[np.floating]
) -> tuple[str, ...]:
    """`need` is what each label, or each label of each picture, needs to be an answer."""
    judged_N = ~world.learn_N
    found_NC, wanted_NC = (score_NC >= need)[judged_N], wanted_NC[judged_N]
    hit = found_NC & wanted_NC
    return (
        name,
        _mean_precision(score_NC[judged_N], wanted_NC),
        str(Accuracy(int(hit.sum()), int(found_NC.sum()))),
        str(Accuracy(int(hit.sum()), int(wanted_NC.sum()))),
        share((found_NC == wanted_NC).all(axis=1)),
    )


def _mean_multi_row(
    world: World, name: str, heads: Sequence[Head], image_ND: torch.Tensor, wanted_NC: Bools
) -> tuple[str, ...]:
    judged_N = ~world.learn_N
    figures = []
    for head in heads:
        score_NC, wanted = head.logits(image_ND).sigmoid().numpy()[judged_N], wanted_NC[judged_N]
        found_NC = score_NC >= 0.5
        hit = (found_NC & wanted).sum()
        figures.append(
            (
                average_precision_score(wanted, score_NC),
                hit / found_NC.sum(),
                hit / wanted.sum(),
                (found_NC == wanted).all(axis=1).mean(),
            )
        )
    return (name, *(f"{spread([float(row[at]) for row in figures])}" for at in range(4)))


def _best_f1(score_N: npt.NDArray[np.float32], wanted_N: Bools) -> float:
    order_N = np.argsort(-score_N, kind="stable")
    hits_N = np.cumsum(wanted_N[order_N])
    f1_N = 2 * hits_N / (np.arange(1, len(order_N) + 1) + wanted_N.sum())
    return float(score_N[order_N[f1_N.argmax()]])


def _mean_precision(score_NC: npt.NDArray[np.float32], wanted_NC: Bools, n_replicates: int = 50) -> str:
    rng, n = np.random.default_rng(0), len(score_NC)
    value = average_precision_score(wanted_NC, score_NC)
    drawn = (rng.integers(n, size=n) for _ in range(n_replicates))
    found = [average_precision_score(wanted_NC[at], score_NC[at]) for at in drawn]
    half = 1.96 * float(np.std(found))
    return f"{100 * value:.1f} ({100 * (value - half):.1f} to {100 * min(1.0, value + half):.1f})"


# --- 5. shares


def measure_shares(world: World) -> Lines:
    yield "## 5. Labels that are not equally common: `prior`, and `labels adjust`"
    yield ""
    yield (
        "12 shapes, 750 pictures (375 of held-out pairs) each time from the half to be judged by, shares by Zipf (the "
        "most common 32 %, the rarest 3 %), ranks by chance, ten seeds.  `off`: total variation between shares and "
        "truth, 0 to 100.  Calibrated: by a temperature learnt on the other half."
    )
    yield ""
    rows = []
    for condition, part, image_ND in conditions(world):
        head = world.head(SHAPES)
        truth_N = part.truth("shape", SHAPES)
        learn_N = part.learn_N
        sure = calibrated(head, fit_temperature(head.logits(image_ND[learn_N]).numpy(), truth_N[learn_N]))
        for how, each in (("", head), (", calibrated", sure)):
            for mix, power in (("Zipf", 1.0), ("equal shares", 0.0)):
                found = [_share_row(each, image_ND, truth_N, ~learn_N, power, seed) for seed in range(10)]
                rows.append((f"{condition}{how}", mix, *(spread(values) for values in zip(*found, strict=True))))
    yield from table(
        [
            "pictures",
            "mix",
            "right, as if equal",
            "right, true shares stated",
            "right, estimated (EM)",
            "off: counted",
            "off: EM",
        ],
        rows,
    )


def _share_row(
    head: Head, image_ND: torch.Tensor, truth_N: Integers, allowed_N: Bools, power: float, seed: int
) -> tuple[float, ...]:
    rng, n_labels = np.random.default_rng(seed), len(head.labels)
    share_C = rng.permutation(1 / np.arange(1, n_labels + 1) ** power)
    n_C = np.floor(allowed_N.sum() / 4 * share_C / share_C.sum()).astype(int)
    at = np.concatenate([rng.permutation(np.flatnonzero(allowed_N & (truth_N == c)))[:n] for c, n in enumerate(n_C)])
    true_C = np.bincount(truth_N[at], minlength=n_labels) / len(at)
    image_ND, truth_N = image_ND[at], truth_N[at]
    found = estimate_shares([head.logits(image_ND).numpy()])
    answer_N = answers(head, image_ND)
    counted_C = np.bincount(answer_N, minlength=n_labels) / len(at)
    return (
        (answer_N == truth_N).mean(),
        right(adjust(head, true_C, "stated"), image_ND, truth_N).mean(),
        right(adjust(head, found.share_C.tolist(), "estimated"), image_ND, truth_N).mean(),
        np.abs(counted_C - true_C).sum() / 2,
        np.abs(found.share_C - true_C).sum() / 2,
    )


# --- 6. examples

SEEDS = 5


def measure_examples(world: World) -> Lines:
    yield "## 6. A few examples: `labels compile --examples`"
    yield ""
    yield (
        f"Examples are drawn from one half, {SEEDS} seeds, and judged on the other.  `foretold`: what the command says "
        "of the examples, each answered by the others.  `examples alone`: the nearest mean of examples, no words."
    )
    yield ""
    shapes, pairs = list(SHAPES), labels_of()
    cases = (
        ("12 shapes by names it does not know, as drawn", "shape", shapes, list(NONSENSE), world.clear_ND),
        ("12 shapes by their names, as drawn", "shape", shapes, shapes, world.clear_ND),
        ("12 shapes by their names, coarse", "shape", shapes, shapes, world.coarse_ND),
        ("144 pairs by their names, coarse", "colour-shape", pairs, pairs, world.coarse_ND),
    )
    for title, task, truths, names, image_ND in cases:
        head, truth_N = world.head(names), world.truth(task, truths)
        yield f"### {title}: {share(right(head, image_ND, truth_N)[~world.learn_N])} by words alone"
        yield ""
        rows = []
        for k in (1, 2, 4, 8, 16):
            drawn = [_draw(world, truth_N, k, seed) for seed in range(SEEDS)]
            if k > 1 and len(drawn[0]) < 0.9 * k * len(names):
                continue
            found = [_examples(world, head, image_ND, truth_N, at) for at in drawn]
            *values, weights = zip(*found, strict=True)
            rows.append((k, *map(spread, values), ", ".join(f"{each:g}" for each in weights)))
        yield from table(
            ["examples a label", "right", "foretold", "weight 1/4", "examples alone", "weights chosen"], rows
        )
    yield from _half_the_labels(world)


def _draw(world: World, truth_N: Integers, k: int, seed: int, labels: Sequence[int] | None = None) -> Integers:
    """Up to k pictures of each label, from the half to learn from."""
    rng, learn_N = np.random.default_rng(seed), world.learn_N
    wanted = range(int(truth_N.max()) + 1) if labels is None else labels
    return np.concatenate([rng.permutation(np.flatnonzero(learn_N & (truth_N == c)))[:k] for c in wanted])


def _examples(world: World, head: Head, image_ND: torch.Tensor, truth_N: Integers, at: Integers) -> tuple[float, ...]:
    judged_N = ~world.learn_N
    text_CD, example_ND = head.matrix_CD.numpy(), image_ND[at].numpy()
    blended = blend_examples(text_CD, example_ND, truth_N[at], scale=head.scale)
    fixed = blend_examples(text_CD, example_ND, truth_N[at], scale=head.scale, weights=(0.25,))
    mean_CD = torch.stack([image_ND[at][truth_N[at] == c].mean(dim=0) for c in range(len(head.labels))])
    alone = replace(head, matrix_CD=torch.nn.functional.normalize(mean_CD, dim=1))
    heads = (with_examples(head, blended, "benchmark"), with_examples(head, fixed, "benchmark"), alone)
    moved, forced, bare = (float(right(each, image_ND[judged_N], truth_N[judged_N]).mean()) for each in heads)
    return moved, blended.accuracy_after, forced, bare, blended.weight


def _half_the_labels(world: World) -> Lines:
    yield "### Half of the labels have no examples"
    yield ""
    yield "Six of the twelve shapes, others for each seed, have examples; right, of the pictures of either half."
    yield ""
    rows = []
    truth_N = world.truth("shape", SHAPES)
    for title, unknown, image_ND in (
        ("by their names, coarse", False, world.coarse_ND),
        ("those with examples by names it does not know, as drawn", True, world.clear_ND),
    ):
        for k in (1, 4, 16):
            found = []
            for seed in range(SEEDS):
                seen = np.sort(np.random.default_rng(seed).permutation(12)[:6])
                names = [NONSENSE[c] if unknown and c in seen else name for c, name in enumerate(SHAPES)]
                head, at = world.head(names), _draw(world, truth_N, k, seed, seen.tolist())
                blended = blend_examples(head.matrix_CD.numpy(), image_ND[at].numpy(), truth_N[at], scale=head.scale)
                before_N = right(head, image_ND, truth_N)
                after_N = right(with_examples(head, blended, "benchmark"), image_ND, truth_N)
                with_N, judged_N = np.isin(truth_N, seen), ~world.learn_N
                cells = [each_N[judged_N & part_N] for part_N in (with_N, ~with_N) for each_N in (before_N, after_N)]
                found.append([float(cell.mean()) for cell in cells])
            rows.append((title, k, *(spread(values) for values in zip(*found, strict=True))))
    yield from table(["", "examples a label", "with examples: before", "after", "without: before", "after"], rows)


# --- 7. calibration

SIGLIP_BIAS = -10.0


def measure_calibration(world: World) -> Lines:
    yield "## 7. Scores at their word: `labels calibrate`"
    yield ""
    yield (
        "ECE, 15 bins, in per cent, and loss, in nats, on the half to be judged by, after learning from some rows of "
        f"the other; {SEEDS} seeds.  Sigmoid: no checkpoint with trained weights was at hand, so this is the bundled "
        f"model's head with link sigmoid and the bias {SIGLIP_BIAS:g} that SigLIP's training begins with."
    )
    yield ""
    rows = []
    for condition, part, image_ND in conditions(world):
        for task in ("shape", "colour-shape"):
            plain = world.head(labels_of(task))
            truth_N = part.truth(task, plain.labels)
            for head in (plain, replace(plain, link="sigmoid", bias=SIGLIP_BIAS)):
                row = [condition, f"{len(head.labels)}", head.link]
                error, loss = _error(part, head, image_ND, truth_N)
                row.append(f"{100 * error:.1f}, {loss:.3f}")
                for n in (50, 200, 1000):
                    found = []
                    for seed in range(SEEDS):
                        at = np.random.default_rng(seed).permutation(np.flatnonzero(part.learn_N))[:n]
                        logit_NC = head.logits(image_ND[at]).numpy()
                        if head.link == "sigmoid":
                            made = fit_platt(logit_NC, np.arange(len(head.labels)) == truth_N[at, None])
                        else:
                            made = fit_temperature(logit_NC, truth_N[at])
                        found.append(_error(part, calibrated(head, made), image_ND, truth_N))
                    errors, losses = zip(*found, strict=True)
                    row.append(f"{spread(errors)}, {statistics.mean(losses):.3f}")
                rows.append(row)
    yield from table(["pictures", "labels", "link", "before", "50 rows", "200 rows", "1,000 rows"], rows)


def _error(world: World, head: Head, image_ND: torch.Tensor, truth_N: Integers) -> tuple[float, float]:
    """ECE of the best label's score, and the mean loss of a picture; under sigmoid, of a picture with a label."""
    judged_N = ~world.learn_N
    logit_NC, truth = head.logits(image_ND[judged_N]).double(), torch.from_numpy(truth_N[judged_N])
    if head.link == "sigmoid":
        score_NC, wanted_NC = logit_NC.sigmoid(), torch.nn.functional.one_hot(truth, len(head.labels)).double()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit_NC, wanted_NC)
    else:
        score_NC, loss = logit_NC.softmax(dim=1), torch.nn.functional.cross_entropy(logit_NC, truth)
    best_N, answer_N = score_NC.max(dim=1)
    return Reliability.count(best_N.numpy(), (answer_N == truth).numpy()).error or 0.0, float(loss)


# --- 8. several sets

BATCH = 64


def measure_cost(world: World) -> Lines:
    yield "## 8. Several label sets in one pass"
    yield ""
    yield (
        f"Images a second in one thread, batches of {BATCH}, image tower and answers, no decoding; the median of 15 "
        "rounds by turns.  The bundled tower is tiny, so that heads weigh more here than with any real model."
    )
    yield ""
    encoder = ImageEncoder(resolve(ModelSpec()), threads=1)
    pixels_BHW3 = np.stack([fit(picture, encoder.geometry) for _, picture in pictures(BATCH, 1)])
    sets = [labels_of(task) for task in ("colour-shape", "colour", "shape", "pattern", "count-shape")]
    heads = [world.head(names) for names in sets]
    calls: dict[str, Callable[[], object]] = {"0": lambda: encoder.encode(pixels_BHW3)}
    for n in (1, 2, 5):
        together = Heads(tuple(heads[:n]), (5, 5, 5, 4, 5)[:n])
        each = [Heads((head,), (k,)) for head, k in zip(together.heads, together.top_ks, strict=True)]
        calls[f"{n}"] = lambda together=together: together.judge(encoder.encode(pixels_BHW3))
        calls[f"{n} apart"] = lambda each=each: [one.judge(encoder.encode(pixels_BHW3)) for one in each]
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(16):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:
                taken[name].append(time.perf_counter() - started)
    rate = {name: BATCH / statistics.median(seconds) for name, seconds in taken.items()}
    rows = [
        (
            n,
            ", ".join(str(len(names)) for names in sets[:n]),
            f"{rate[str(n)]:,.0f}",
            f"{rate[f'{n} apart']:,.0f}",
            f"{rate[str(n)] / rate[f'{n} apart']:.1f} x",
        )
        for n in (1, 2, 5)
    ]
    yield from table(["sets", "labels", "images/s, one pass", "images/s, a run for each", ""], rows)
    yield f"The tower alone: {rate['0']:,.0f} images/s."


SECTIONS = (
    measure_words,
    measure_hierarchy,
    measure_rejection,
    measure_multi,
    measure_shares,
    measure_examples,
    measure_calibration,
    measure_cost,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=6_000)
    parser.add_argument("--cache", type=Path, help="a folder that keeps the embeddings")
    parser.add_argument("--sections", default="12345678", help="only these")
    parser.add_argument("--write", action="store_true", help="keep the table under benchmarks/results")
    options = parser.parse_args()
    world = make_world(options.pictures, options.cache)
    lines = [
        "# Labels: what each method is worth",
        "",
        f"`benchmarks/labels.py --pictures {options.pictures}`; {machine()}.",
        "",
    ]
    for number, measure in enumerate(SECTIONS, start=1):
        if str(number) in options.sections:
            started = time.monotonic()
            lines += [*measure(world), ""]
            print("\n".join(lines[-1:]), f"section {number}: {time.monotonic() - started:.0f} s", flush=True)
    text = "\n".join(lines).replace("\n\n\n", "\n\n")
    print(text)
    if options.write:
        print(write_results("labels", text))


if __name__ == "__main__":
    main()
