"""The command line, put together: one group of commands a file. Not here: how a command ends (``edge``)."""

from __future__ import annotations

from typing import Annotated

import typer

import workbench
from workbench.cli import agent, history, hub, move, pipeline, workspace
from workbench.cli.output import emit

app = typer.Typer(
    name="workbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A Git-native, version-controlled workbench for local code agents.",
    epilog="Exit codes: 0 done · 1 a check failed · 2 wrong use · 3 refused by a rule · 4 not found · 5 lost a race · "
    "6 the machine failed · 7 a tool is missing · 8 corrupt data · 9 a stage failed · 10 native code crashed · "
    "130 interrupted",
)


def _version(asked: bool) -> None:
    if asked:
        emit(f"workbench {workbench.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which workbench this is.")
    ] = False,
) -> None: ...


workspace.register(app)
pipeline.register(app)
history.register(app)
move.register(app)
agent.register(app)
hub.register(app)


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. What it raises is for ``edge``."""
    app(arguments, prog_name="workbench")
    return 0
