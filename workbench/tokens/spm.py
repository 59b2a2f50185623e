"""Training a SentencePiece BPE model whose bytes depend on the text and the sizes alone.

The trainer writes the number of threads and the names of files into the model; the pieces and their scores do not
depend on them. So the specification is cleared of both before it is serialised.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

from workbench.domain.errors import UserError, WorldError
from workbench.domain.tokens import BEGIN, CONTROL, END, PAD, UNKNOWN

_NOT_OURS = ("input", "model_prefix", "num_threads", "seed_sentencepieces_file", "accept_language")
_RESERVED = dict.fromkeys(map(ord, "\0\u2047\u2581"))  # the trainer drops every sentence that holds one of these
_LONGEST_LINE = 4096  # characters; longer lines (tables, embedded data) are cut, not dropped


def train(
    texts: Iterable[str], *, vocab_size: int, character_coverage: float, longest_piece: int, threads: int = 1
) -> bytes:
    """The model file of a BPE tokenizer with byte fallback. The same bytes for any number of ``threads``.

    UserError when the vocabulary does not fit the text: too small for its characters, or larger than its merges.
    """
    import sentencepiece

    out = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_lines(texts)),
            model_writer=out,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            max_sentencepiece_length=longest_piece,
            max_sentence_length=1 << 20,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n", "\t"],
            control_symbols=list(CONTROL),
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            unk_piece=UNKNOWN,
            bos_piece=BEGIN,
            eos_piece=END,
            pad_piece=PAD,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        if "INTERNAL" not in str(error):  # of the machine: no thread, no memory
            raise WorldError(f"SentencePiece gave up: {error}", "free some memory, and run it again") from error
        raise UserError(
            f"no vocabulary of {vocab_size} tokens can be made from this text: {error}",
            "change vocab_size, or give more text (sample_bytes)",
        ) from error
    return neutral(out.getvalue())


def neutral(model: bytes) -> bytes:
    """The same model without what its trainer noted of threads, files and places."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for name in _NOT_OURS:
        proto.trainer_spec.ClearField(name)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _lines(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for line in text.translate(_RESERVED).split("\n"):
            for start in range(0, len(line), _LONGEST_LINE):
                yield line[start : start + _LONGEST_LINE]
