"""Quantisation by llama.cpp, with its silent fallbacks made loud.

The bytes do not depend on the number of threads. Where a row's length does not fit a type's blocks, llama.cpp takes
another type and only logs it; here the types that were written are read back and compared with the recipe. Source:
llama.cpp's quantize tool. Not here: writing F16 and F32 (see ``stages.package``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import llama_cpp as c

from workbench.domain.errors import StageFailed, UserError
from workbench.domain.gguf import Header
from workbench.inference import native
from workbench.inference.gguf_header import read_header


@dataclass(frozen=True)
class Recipe:
    file_type: int  # llama.cpp's LLAMA_FTYPE
    types: frozenset[str]  # that a matrix may have


RECIPES: Mapping[str, Recipe] = {
    "F16": Recipe(1, frozenset({"F16"})),
    "Q8_0": Recipe(7, frozenset({"Q8_0"})),
    "Q4_0": Recipe(2, frozenset({"Q4_0", "Q6_K"})),
    "Q4_K_M": Recipe(15, frozenset({"Q4_K", "Q6_K"})),
    "Q5_K_M": Recipe(17, frozenset({"Q5_K", "Q6_K"})),
    "Q6_K": Recipe(18, frozenset({"Q6_K"})),
}


def quantise(source: Path, target: Path, kind: str, *, threads: int = 0) -> None:
    """Write ``target`` as ``kind``; nothing is left of it when it fails."""
    if kind not in RECIPES:
        raise UserError(f"unknown quantisation {kind!r}", f"known are {', '.join(RECIPES)}")
    read_header(source)
    partial = target.with_name(target.name + ".partial")
    try:
        _write(source, partial, RECIPES[kind].file_type, threads or os.cpu_count() or 1)
        check_types(read_header(partial), kind)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_types(header: Header, kind: str) -> None:
    """StageFailed, naming the tensors, where a matrix has another type than the recipe's or a vector is not F32."""
    wanted = RECIPES[kind].types
    wrong = [
        f"{tensor.name} {list(tensor.shape)} is {tensor.type}"
        for tensor in header.tensors
        if tensor.type not in (wanted if len(tensor.shape) > 1 else {"F32"})
    ]
    if wrong:
        shown = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise StageFailed(
            f"{kind} fell back to other types: {shown}",
            "make hidden_size and intermediate_size multiples of 256, or leave this quantisation out",
        )


def _write(source: Path, target: Path, file_type: int, threads: int) -> None:
    native.start()
    params = c.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = file_type
    with native.complaints() as heard:
        status = int(c.llama_model_quantize(os.fsencode(source), os.fsencode(target), params))
    if status:
        native.check_memory(heard)
        raise StageFailed(
            f"llama.cpp could not quantise {source.name}: {native.reason(heard)}", "start from an F16 or F32 file"
        )
