"""How the commands look in a terminal: one function a command, called by `zsic.cli`."""

from zsic.console.demo import demo
from zsic.console.inspect import check_labels, evaluate, predict, pull_model, verify
from zsic.console.job import relabel, run_job, show_plan
from zsic.console.submit import follow, stop, submit

__all__ = [
    "check_labels",
    "demo",
    "evaluate",
    "follow",
    "predict",
    "pull_model",
    "relabel",
    "run_job",
    "show_plan",
    "stop",
    "submit",
    "verify",
]
