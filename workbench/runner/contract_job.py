"""The contract of an ``agents/``, computed in a process of its own: what runs in the sandbox, and nowhere else.

``python -m workbench.runner.contract_job`` reads the files on standard input (``source.packed``), says ``ready`` before
it looks at them, and then its answer in JSON (``domain.contract.read_answer``). The code that it imports may do
anything here, and may also forge the answer: whoever started this judges what comes out as data, and tells what this
process died of.
"""

from __future__ import annotations

import json
import os
import sys

from workbench.domain.contract import FORMAT, READY
from workbench.domain.errors import UserError
from workbench.runner import contract, importer, source
from workbench.system.durable import write_all


def answer(data: bytes) -> bytes:
    """The contract of the packed files, or why they have none."""
    try:
        tools = contract.find_tools(importer.load(source.unpacked(data)).values())
        return _said(contract.contract(tools)) if tools else _said(None, "agents/ defines no tool")
    except UserError as error:
        return _said(None, error.what)
    except Exception as error:  # noqa: BLE001  (the code of agents/ also runs while its schemas are made)
        return _said(None, f"its tools cannot be described: {type(error).__name__}: {error}")


def _said(found: dict[str, object] | None, why: str = "") -> bytes:
    return json.dumps({"format": FORMAT, "contract": found, "why": why[:2000]}).encode("ascii")


def main() -> None:
    out, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    data = sys.stdin.buffer.read()
    os.write(out, READY)
    for stream in (1, 2):  # what the code prints is no answer, and may be a gigabyte
        os.dup2(nowhere, stream)
    write_all(out, answer(data))
    os._exit(0)  # whatever the code left running, or wanted to be done at the end


if __name__ == "__main__":
    main()
