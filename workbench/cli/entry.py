"""Where ``workbench`` and ``git workbench`` start. Imports as little as the command needs."""

from __future__ import annotations

import sys

from workbench.cli.edge import ended


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    sys.exit(ended(lambda: _run(arguments), as_json="--json" in arguments))


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["status"] and not {"--help", "-h"} & set(arguments):
        from workbench.cli.status import main as status

        return status(arguments[1:])
    from workbench.cli.commands import run

    return run(arguments)


if __name__ == "__main__":
    main()
