"""The command line, put together: one group of commands a file. Not here: how a command ends (``edge``)."""

from __future__ import annotations

import typer

from workbench.cli import agent, history, hub, move, pipeline, workspace

app = typer.Typer(
    name="workbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A Git-native, version-controlled workbench for local code agents.",
    epilog="Exit codes: 0 done · 1 a check failed · 2 wrong use · 3 refused by a rule · 4 not found · 5 lost a race · "
    "6 the machine failed · 7 a tool is missing · 8 corrupt data · 9 a stage failed · 130 interrupted",
)

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
