"""Names of the control and fill-in-the-middle tokens, and how a FIM prompt is laid out.

The FIM names are the ones llama.cpp recognises by text; their ids also stand in the GGUF's ``fim_*_token_id`` keys.
PSM and SPM after Bavarian et al. 2022 (arXiv 2207.14255), SPM in its ``<pre><suf>s<mid>p m`` variant.
"""

from __future__ import annotations

UNKNOWN, BEGIN, END, PAD = "<unk>", "<s>", "</s>", "<pad>"
FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
FILE_SEPARATOR = "<|file_sep|>"
THINK, THINK_END = "<think>", "</think>"
ACTION, ACTION_END = "<action>", "</action>"
STATE_UPDATE, STATE_UPDATE_END = "<state_update>", "</state_update>"

CONTROL = (
    FIM_PREFIX,
    FIM_SUFFIX,
    FIM_MIDDLE,
    FILE_SEPARATOR,
    THINK,
    THINK_END,
    ACTION,
    ACTION_END,
    STATE_UPDATE,
    STATE_UPDATE_END,
)


def psm(prefix: list[int], suffix: list[int], *, pre: int, suf: int, mid: int) -> list[int]:
    """Prefix-suffix-middle prompt: the model goes on with the middle."""
    return [pre, *prefix, suf, *suffix, mid]


def spm(prefix: list[int], suffix: list[int], *, pre: int, suf: int, mid: int) -> list[int]:
    """Suffix-prefix-middle prompt: the middle follows its prefix directly."""
    return [pre, suf, *suffix, mid, *prefix]
