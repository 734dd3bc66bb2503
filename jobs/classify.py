"""Run a spec as a Ray job: `ray job submit --working-dir . -- python jobs/classify.py jobs/SPEC.yaml`.

On the cluster the job connects to the Ray that runs it; the exit code is that of `zsic run`.
"""

import sys

from zsic.cli import main

if __name__ == "__main__":
    sys.argv[1:] = ["run", *sys.argv[1:], "--address", "auto"]
    main()
