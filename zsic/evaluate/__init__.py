"""How right an output is, once somebody has said what the images show; and how two outputs differ."""

from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.calibration import Calibration, ReliabilityBin
from zsic.evaluate.classes import LabelAccuracy, LabelMeans
from zsic.evaluate.confusion import ConfusedPair
from zsic.evaluate.coverage import Coverage, CoveragePoint
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.evaluation import Evaluation, evaluate
from zsic.evaluate.summary import label_rows, render, summary_rows
from zsic.evaluate.truth import Truth, load_truth
from zsic.evaluate.vocabulary import fold, synonyms_of

__all__ = [
    "Accuracy",
    "Calibration",
    "ConfusedPair",
    "Coverage",
    "CoveragePoint",
    "Estimate",
    "Evaluation",
    "LabelAccuracy",
    "LabelMeans",
    "ReliabilityBin",
    "Truth",
    "evaluate",
    "fold",
    "label_rows",
    "load_truth",
    "render",
    "summary_rows",
    "synonyms_of",
]
