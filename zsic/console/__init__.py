"""How the commands look in a terminal: one function a command, called by `zsic.cli`."""

from zsic.console.demo import demo
from zsic.console.evaluation import evaluate
from zsic.console.explain import explain
from zsic.console.export import export
from zsic.console.inspect import predict, pull_model, verify
from zsic.console.job import relabel, run_job, show_plan
from zsic.console.labels import adjust_labels, calibrate_labels, check_labels, compile_labels, show_schema
from zsic.console.report import report
from zsic.console.search import search
from zsic.console.submit import follow, stop, submit

__all__ = [
    "adjust_labels",
    "calibrate_labels",
    "check_labels",
    "compile_labels",
    "demo",
    "evaluate",
    "explain",
    "export",
    "follow",
    "predict",
    "pull_model",
    "relabel",
    "report",
    "run_job",
    "search",
    "show_plan",
    "show_schema",
    "stop",
    "submit",
    "verify",
]
