"""A SentencePiece model as the workbench uses it: lossless, and control tokens never come out of text.

SentencePiece writes a blank as U+2581, so a U+2581 in the text itself would come back as a blank. Here it is encoded as
its three UTF-8 bytes instead. (llama.cpp has no such escape: a text that holds U+2581 has other ids there.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import sentencepiece

from workbench.domain.errors import Corrupt, NotFound, UserError
from workbench.domain.tokens import (
    BEGIN,
    CONTROL,
    END,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    PAD,
    UNKNOWN,
    psm,
    spm,
)

MODEL_FILE = "tokenizer.model"
_BLANK = "\u2581"


class Tokenizer:
    """Token ids of a text, and the text of token ids. Built by ``load`` or ``from_bytes``; not changed afterwards."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.sha256 = hashlib.sha256(model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise Corrupt(f"tokenizer model cannot be read: {error}", "build the tokenizer again") from error
        self.vocab_size: int = self._processor.GetPieceSize()
        self.ids: Mapping[str, int] = {
            name: self._processor.PieceToId(name) for name in (UNKNOWN, BEGIN, END, PAD, *CONTROL)
        }
        missing = [name for name, id in self.ids.items() if self._processor.IdToPiece(id) != name]
        if missing:
            raise UserError(
                f"the tokenizer has no token {', '.join(missing)}", "use a tokenizer that the tokenizer stage made"
            )
        self._blank_bytes = [self._processor.PieceToId(f"<0x{byte:02X}>") for byte in _BLANK.encode()]

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read ``tokenizer.model``, or the folder (a tokenizer's payload, say) that holds it."""
        file = path / MODEL_FILE if path.is_dir() else path
        try:
            return cls(file.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"no tokenizer at {file}", "give a tokenizer.model or the folder that holds it") from error

    @classmethod
    def from_bytes(cls, model: bytes) -> Tokenizer:
        return cls(model)

    def encode(self, text: str) -> list[int]:
        """Ids without begin and end. Never a control token, whatever the text says."""
        if _BLANK not in text:
            ids: list[int] = self._processor.EncodeAsIds(text)
            return ids
        first, *others = text.split(_BLANK)
        ids = self._processor.EncodeAsIds(first)
        for part in others:
            ids += self._blank_bytes
            ids += self._processor.EncodeAsIds(part)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 bytes of ids; control tokens have none. For streaming: bytes may end inside a character."""
        table = self.token_bytes
        return b"".join([table[id] for id in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. What is not UTF-8 (a model may emit any bytes) becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @cached_property
    def token_bytes(self) -> Sequence[bytes]:
        """By id, the bytes that the token stands for: what bits per byte are counted over."""
        return tuple(self._bytes_of(id) for id in range(self.vocab_size))

    @cached_property
    def byte_tokens(self) -> frozenset[int]:
        """The 256 ids that stand for one byte each: what characters outside the vocabulary fall back to."""
        return frozenset(id for id in range(self.vocab_size) if self._processor.IsByte(id))

    def piece(self, id: int) -> str:
        """The token's own text, for reports."""
        text: str = self._processor.IdToPiece(id)
        return text

    def prompt(self, text: str) -> list[int]:
        """What a model is given to go on with ``text``."""
        return [self.ids[BEGIN], *self.encode(text)]

    def fim_prompt(self, prefix: str, suffix: str, layout: str = "psm") -> list[int]:
        """What a model is given to fill in the middle; ``layout`` is psm or spm."""
        arrange = {"psm": psm, "spm": spm}.get(layout)
        if arrange is None:
            raise UserError(f"unknown fill-in-the-middle layout: {layout!r}", "use psm or spm")
        control = {"pre": self.ids[FIM_PREFIX], "suf": self.ids[FIM_SUFFIX], "mid": self.ids[FIM_MIDDLE]}
        return [self.ids[BEGIN], *arrange(self.encode(prefix), self.encode(suffix), **control)]

    def _bytes_of(self, id: int) -> bytes:
        processor = self._processor
        if processor.IsControl(id) or processor.IsUnknown(id):
            return b""
        piece: str = processor.IdToPiece(id)
        if processor.IsByte(id):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_BLANK, " ").encode()
