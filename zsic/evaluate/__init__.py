"""How right an output is, once somebody has said what the images show; and how two outputs differ."""

from zsic.evaluate.accuracy import Accuracy
from zsic.evaluate.calibration import Calibration, ReliabilityBin
from zsic.evaluate.changes import Change, LabelChange
from zsic.evaluate.classes import LabelAccuracy, LabelMeans
from zsic.evaluate.comparison import Comparison, compare
from zsic.evaluate.confusion import ConfusedPair
from zsic.evaluate.coverage import Coverage, CoveragePoint
from zsic.evaluate.drift import LabelDrift, LabelShare, ScoreDrift
from zsic.evaluate.estimate import Estimate
from zsic.evaluate.evaluation import Evaluation, evaluate
from zsic.evaluate.figures import to_table, write_figures
from zsic.evaluate.mcnemar import PairedAccuracy
from zsic.evaluate.summary import label_rows, render, summary_rows
from zsic.evaluate.truth import Truth, load_truth
from zsic.evaluate.vocabulary import fold, synonyms_of

__all__ = [
    "Accuracy",
    "Calibration",
    "Change",
    "Comparison",
    "ConfusedPair",
    "Coverage",
    "CoveragePoint",
    "Estimate",
    "Evaluation",
    "LabelAccuracy",
    "LabelChange",
    "LabelDrift",
    "LabelMeans",
    "LabelShare",
    "PairedAccuracy",
    "ReliabilityBin",
    "ScoreDrift",
    "Truth",
    "compare",
    "evaluate",
    "fold",
    "label_rows",
    "load_truth",
    "render",
    "summary_rows",
    "synonyms_of",
    "to_table",
    "write_figures",
]
