"""What a schedule runs: take up what is new in a spec's source, then recount the whole table.

`ray job submit --working-dir . -- python jobs/enrich.py jobs/SPEC.yaml`; the exit code is that of `zsic run`, else that
of `zsic verify`.  Of two that run at once the second ends with exit code 3 and has done nothing.
"""

import sys

from zsic.cli import run_command
from zsic.core.spec import load_spec

if __name__ == "__main__":
    code = run_command(["run", *sys.argv[1:], "--address", "auto"])
    if code == 0:
        spec = load_spec(sys.argv[1])
        endpoint = spec.store.s3_endpoint_url
        code = run_command(["verify", spec.output.uri, *(["--s3-endpoint-url", endpoint] if endpoint else [])])
    sys.exit(code)
