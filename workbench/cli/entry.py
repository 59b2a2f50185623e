"""Where ``workbench`` and ``git workbench`` start. Imports as little as the command needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["status"] and not {"--help", "-h"} & set(arguments):
        from workbench.cli.status import main as status

        sys.exit(status(arguments[1:]))
    from workbench.cli.commands import run

    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
