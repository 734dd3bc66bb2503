"""How right a table is: `ray job submit --working-dir . -- python jobs/evaluate.py OUT --truth s3://lake/truth.csv`.

It needs one CPU and no encoder; on a cluster it reads with the cluster's permissions.
"""

import sys

from zsic.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command(["evaluate", *sys.argv[1:]]))
