"""Zero-shot image classification as a batch job on Ray.

    >>> import zsic
    >>> classifier = zsic.Classifier("demo", ["red circle", "blue square"])   # doctest: +SKIP
    >>> zsic.run(zsic.load_spec("job.yaml"))                                  # doctest: +SKIP

Heavy packages are imported when a name is first used: `import zsic` itself takes milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zsic.core.spec import JobSpec, load_spec
    from zsic.models.classifier import Classifier, Judgement
    from zsic.models.head import Head
    from zsic.pipeline.heads import adjust_shares, calibrate, compile_labels
    from zsic.pipeline.run import run
    from zsic.pipeline.summary import RunSummary

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Head",
    "JobSpec",
    "Judgement",
    "RunSummary",
    "__version__",
    "adjust_shares",
    "calibrate",
    "compile_labels",
    "load_spec",
    "run",
]

_HOMES = {
    "Classifier": "zsic.models.classifier",
    "Head": "zsic.models.head",
    "JobSpec": "zsic.core.spec",
    "Judgement": "zsic.models.classifier",
    "RunSummary": "zsic.pipeline.summary",
    "adjust_shares": "zsic.pipeline.heads",
    "calibrate": "zsic.pipeline.heads",
    "compile_labels": "zsic.pipeline.heads",
    "load_spec": "zsic.core.spec",
    "run": "zsic.pipeline.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'zsic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
