"""Which package index the installed Python client uses: its own answer, from its files, environment and defaults.

No host name is written in this project. pip merges configuration files, ``PIP_*`` and its own default, so it is asked,
in a process of its own. What it can be told, is followed: indexes, places that hold archives or link to them
(``find-links``, which need no index at all: ``no-index``), hosts trusted without a certificate, certificates, a proxy,
a time limit. Not here: a keyring.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workbench.domain.errors import ToolMissing, UserError

_ASK = """
import json
from pip._internal.commands import create_command
options, _ = create_command("download").parse_args(["x"])
names = ("index_url", "extra_index_urls", "cert", "client_cert", "proxy", "timeout", "no_index", "find_links")
found = {name: getattr(options, name) for name in (*names, "trusted_hosts")}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class IndexSettings:
    indexes: tuple[str, ...]  # base URLs of simple indexes, in order
    links: tuple[str, ...] = ()  # URLs of folders, pages and archives, looked at before the indexes
    certificates: str = ""  # path of a CA bundle; empty: the library's own
    client_certificate: str = ""
    proxy: str = ""
    timeout_s: float = 15.0
    trusted_hosts: tuple[str, ...] = ()  # HOST or HOST:PORT, whose certificate is not asked for


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
    places = {link: _url(link) for link in options["find_links"] or []}
    links = [url for url in places.values() if url]
    if not any(indexes) and not links:
        missing = "".join(f", and its find-links {link!r} is not there" for link, url in places.items() if not url)
        raise UserError(
            f"pip is configured for no package index{missing}",
            "unset PIP_NO_INDEX, or name a place: pip config set global.index-url URL, or global.find-links FOLDER",
        )
    return IndexSettings(
        indexes=tuple(url for url in indexes if url),
        links=tuple(links),
        certificates=options["cert"] or "",
        client_certificate=options["client_cert"] or "",
        proxy=options["proxy"] or "",
        timeout_s=float(options["timeout"] or 15),
        trusted_hosts=tuple(options["trusted_hosts"] or ()),
    )


def _url(link: str) -> str:
    """A find-links place as a URL; empty for a path where nothing is (pip passes over it, and so do we)."""
    if urlsplit(link).scheme in ("http", "https", "file"):
        return link
    path = Path(link).expanduser()
    return path.absolute().as_uri() if path.exists() else ""
