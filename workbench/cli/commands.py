"""The command line, put together: one group of commands a file. Errors become two lines and an exit code here."""

from __future__ import annotations

import os
import sys

import typer

from workbench.cli import agent, history, hub, move, pipeline, workspace
from workbench.domain.errors import WorkbenchError

app = typer.Typer(
    name="workbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A Git-native, version-controlled workbench for local code agents.",
    epilog="Exit codes: 0 done · 1 a check failed · 2 wrong use · 3 refused by a rule · 4 not found · 5 lost a race · "
    "6 the machine failed · 7 a tool is missing · 8 corrupt data · 9 a stage failed",
)

workspace.register(app)
pipeline.register(app)
history.register(app)
move.register(app)
agent.register(app)
hub.register(app)


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        app(arguments, prog_name="workbench")
    except SystemExit as stop:  # how typer ends: usage errors and interrupts are printed by then
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except WorkbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.stderr.write(f"error: {error}\n  nothing was changed by the step that failed; mend it and run again\n")
        return 6
    return 0
