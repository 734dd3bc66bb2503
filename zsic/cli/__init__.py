"""The command line: arguments only.  What a command does is elsewhere; how it looks is in `zsic.console`."""

import os
import sys
import traceback

import typer

# Each brings its commands; help lists them in this order.
from zsic.cli import jobs, here, outputs, labels  # isort: skip  # noqa: F401
from zsic.cli.app import app
from zsic.core.errors import IncompleteError, SpecError, ZsicError

__all__ = ["app", "main", "run_command"]


def main() -> None:
    """Run the command line, and end with its exit code."""
    sys.exit(run_command())


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command, by default that of the command line; errors of ours become a message and an exit code."""
    try:
        # Standalone, typer would turn Ctrl-C into an exit code of its own.
        code = app(arguments, standalone_mode=False)
    except ZsicError as error:
        from zsic.core.terminal import printable

        if os.environ.get("ZSIC_TRACEBACK"):
            _show_traceback(error)
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"zsic: {printable(line)}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("zsic: interrupted", file=sys.stderr)
        return IncompleteError.exit_code
    except BrokenPipeError:
        # Nobody reads on; Python would complain of that when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:  # noqa: BLE001  A wrong flag is of a class that typer keeps to itself.
        from zsic.core.terminal import printable

        if type(error).__name__ == "ValidationError":
            from zsic.core.spec import explain_faults

            for line in explain_faults(error):
                print(f"zsic: {printable(line)}", file=sys.stderr)
            return SpecError.exit_code
        if not hasattr(error, "format_message"):
            _show_traceback(error)
            return 1
        # Not its own show(): names of files that begin with a dash come here as they are.
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "zsic"
        print(f"zsic: {printable(error.format_message())}; see `{command} --help`", file=sys.stderr)
        return SpecError.exit_code
    else:
        # Of a command that ended with `typer.Exit`.
        return code if isinstance(code, int) else 0
    return 0


def _show_traceback(error: BaseException) -> None:
    from zsic.core.terminal import printable

    for line in "".join(traceback.format_exception(error)).splitlines():
        print(printable(line), file=sys.stderr)
