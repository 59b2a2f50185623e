"""Which of llama.cpp's CPU variants computes here: the best that this processor can run, or the one that is asked for.

A variant is a shared library beside libllama, ``libggml-cpu-<name>.so``, that scores itself: 0 where the processor
lacks an instruction that it uses. Only that folder is searched; llama.cpp's own search takes the current folder too. A
llama.cpp that was built for one machine has no variants, and is called ``native``.

``python -m workbench.inference.variants`` prints the name, for who wants no native code in his own process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench.config.installed import command_for
from workbench.domain.errors import ToolMissing, UserError, WorkbenchError

VARIABLE = "WORKBENCH_LLAMA_VARIANT"  # a process reads it once, when it first computes
NATIVE = "native"
_PREFIX = "libggml-cpu-"


@dataclass(frozen=True)
class Variant:
    name: str
    library: Path | None  # None: it is a part of llama.cpp


@cache
def chosen() -> Variant:
    """The variant of this process."""
    return choose(libraries(), os.environ.get(VARIABLE, ""))


def choose(folder: Path, wanted: str = "") -> Variant:
    """``wanted``; without it, the variant of the highest score. UserError where ``wanted`` is not there or cannot run
    on this processor; ToolMissing where none can."""
    known = scores(folder)
    able = [name for name, score in known.items() if score]
    if not able:
        raise ToolMissing(f"no variant of llama.cpp runs here ({', '.join(known)})", command_for("llama-cpp-python"))
    if wanted and wanted not in able:
        why = "this processor cannot run it" if wanted in known else "llama.cpp was built without it"
        raise UserError(f"{VARIABLE}={wanted} cannot be used: {why}", f"use one of {', '.join(able)}, or unset it")
    name = wanted or max(able, key=lambda each: known[each])
    return Variant(name, None if name == NATIVE else folder / f"{_PREFIX}{name}.so")


def scores(folder: Path) -> Mapping[str, int]:
    """Each variant in ``folder`` and its score for this processor."""
    found = sorted(folder.glob(f"{_PREFIX}*.so"))
    if not found:
        return {NATIVE: 1}
    return {path.stem.removeprefix(_PREFIX): int(ctypes.CDLL(str(path)).ggml_backend_score()) for path in found}


def libraries() -> Path:
    """The folder of llama.cpp's shared libraries; nothing is imported. ToolMissing where it is not installed."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise ToolMissing("llama-cpp-python is not installed", command_for("llama-cpp-python"))
    return Path(found.origin).parent / "lib"


def main() -> int:
    try:
        print(chosen().name)
    except WorkbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
