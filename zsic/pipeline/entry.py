"""What a submitted job runs first: is this cluster able to run zsic at all?  Then zsic, as `python -m zsic` does.

It is copied beside the packed spec and run by whatever Python the cluster has, so it is written for old ones and
imports nothing of zsic before it has looked.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from importlib import metadata
from typing import Any

REQUIREMENTS = "requirements.json"
"""Beside the copy: what `zsic/pipeline/package.py` packed, and for which Python and packages."""


_ADVICE = "install what zsic needs on all nodes; cluster/README.md tells how, for an image and for a Ray that stands"


def find_problems(needed: dict[str, Any]) -> list[str]:
    """Say, a line each, what of `needed` (`python`: a version, `packages`: requirements) is not here."""
    here = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < tuple(map(int, needed["python"].split("."))):
        # The packages of another Python say nothing.
        return [f"the cluster runs Python {here}; zsic needs {needed['python']} or newer"]
    from packaging.requirements import Requirement  # comes with Ray

    problems = []
    for text in needed["packages"]:
        required = Requirement(text)
        if required.marker is not None and not required.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            problems.append(f"the cluster lacks {required.name}{required.specifier}")
            continue
        if not required.specifier.contains(found, prereleases=True):
            problems.append(f"the cluster has {required.name} {found}; zsic needs {required.specifier}")
    return problems


def main() -> None:
    """Look, then become zsic; exit code 2 and the reasons if that cannot be."""
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, REQUIREMENTS), encoding="utf-8") as file:
        problems = find_problems(json.load(file))
    if problems:
        for problem in [*problems, _ADVICE]:
            sys.stderr.write(f"zsic: {problem}\n")
        sys.exit(2)
    sys.path.insert(0, folder)
    runpy.run_module("zsic", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
