"""How right an output is, once somebody has said what the images show."""

from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.evaluation import Evaluation, LabelAccuracy, evaluate
from zsic.evaluate.summary import label_rows, render, summary_rows
from zsic.evaluate.truth import Truth, load_truth

__all__ = [
    "Accuracy",
    "Evaluation",
    "LabelAccuracy",
    "Truth",
    "evaluate",
    "label_rows",
    "load_truth",
    "render",
    "summary_rows",
]
