"""Give an output other labels as a Ray job: `ray job submit --working-dir . -- python jobs/relabel.py OUT ...`.

What follows is what `zsic relabel` takes, and so is the exit code.  No image is read; no GPU is needed.
"""

import sys

from zsic.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command(["relabel", *sys.argv[1:], "--address", "auto"]))
