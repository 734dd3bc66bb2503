"""Run a spec as a Ray job: `ray job submit --working-dir . -- python jobs/classify.py jobs/SPEC.yaml`.

On the cluster the job connects to the Ray that runs it; the exit code is that of `zsic run`.
"""

import sys

from zsic.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command(["run", *sys.argv[1:], "--address", "auto"]))
