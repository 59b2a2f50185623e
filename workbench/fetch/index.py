"""Which package index the installed Python client uses: its own answer, from its files, environment and defaults.

No host name is written in this project. pip merges configuration files, ``PIP_*`` and its own default, so it is asked,
in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from workbench.domain.errors import ToolMissing, UserError

_ASK = """
import json
from pip._internal.commands import create_command
options, _ = create_command("download").parse_args(["x"])
names = ("index_url", "extra_index_urls", "cert", "client_cert", "proxy", "timeout", "no_index")
print(json.dumps({name: getattr(options, name) for name in names}))
"""


@dataclass(frozen=True)
class IndexSettings:
    indexes: tuple[str, ...]  # base URLs of simple indexes, in order
    certificates: str = ""  # path of a CA bundle; empty: the library's own
    client_certificate: str = ""
    proxy: str = ""
    timeout_s: float = 15.0


def discover() -> IndexSettings:
    """What pip is configured for; ToolMissing without pip, UserError where it is told to use no index."""
    asked = subprocess.run(
        [sys.executable, "-I", "-c", _ASK],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PIP_NO_INPUT": "1"},
    )
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        raise ToolMissing(
            f"pip, whose package index is used, does not answer: {last}", f"{sys.executable} -m ensurepip --upgrade"
        )
    options = json.loads(asked.stdout.strip().splitlines()[-1])
    indexes = [options["index_url"], *(options["extra_index_urls"] or [])] if not options["no_index"] else []
    if not any(indexes):
        raise UserError(
            "pip is configured for no package index",
            "unset PIP_NO_INDEX, or set one: pip config set global.index-url URL",
        )
    return IndexSettings(
        indexes=tuple(url for url in indexes if url),
        certificates=options["cert"] or "",
        client_certificate=options["client_cert"] or "",
        proxy=options["proxy"] or "",
        timeout_s=float(options["timeout"] or 15),
    )
