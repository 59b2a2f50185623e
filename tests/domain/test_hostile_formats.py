"""Every format that can come from outside, changed in ways that nobody wrote by hand: it is read, or one kind of error
says what is wrong, in bounded time. What is read can be written and read again."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from workbench.corpus import rows
from workbench.corpus.document import Document
from workbench.decoder.config import DecoderConfig
from workbench.domain import roles
from workbench.domain.action import ActionParts
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.events import Log, Progress, decode, encode
from workbench.domain.generation import Generation, Sampling
from workbench.domain.ids import Digest, ObjectId, make_ulid
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.manifest import FileEntry, InputEntry, Manifest
from workbench.domain.reading import parse_json
from workbench.domain.refs import Kind
from workbench.domain.run import RunRecord, StepRecord
from workbench.hub.tiers import parse_tier
from workbench.pipeline import watch
from workbench.pipeline.definition import parse as parse_pipeline
from workbench.state import document
from workbench.store.git.bundle import Statement

ID, SHA = ObjectId("a" * 40), Digest("b" * 64)
HERE = Path(__file__).parents[2]
MANIFEST = Manifest(
    Kind.MODEL, "rust", (FileEntry("a/b", SHA, 3), FileEntry("c", SHA, 1 << 30, 256)),
    (InputEntry(Kind.SHARDS, "rust", ID),), {"depth": 2, "lr": 3e-4, "nested": {"x": [1, None, True]}}, 7, "train",
    "c" * 64, {"torch": "2.9"}, "d" * 64, {"steps": 10}, {"loss": 1.25},
)  # fmt: skip
RECORD = RunRecord(
    make_ulid(1, bytes(10)), "pipeline", "rust", ID, "push", steps=(StepRecord("crawl", rates={"MB/s": 1.5}),),
    options={"mode": {"only": []}},
)  # fmt: skip
GENERATION = Generation("fn", (1, 2), "stop", (3,), Sampling(stop=("\n",)), "e" * 64, {"n_ctx": 512})
PACKAGE = rows.PackageRow("a-1", "a", "1", "crate", "MIT", SHA, 5, "", 2, ["LICENSE"])
CONFIG = DecoderConfig(300, 64, 128, 2, 4, 2, 16, 128)


def _pipeline(data: bytes) -> object:
    return parse_pipeline(data, "ci/pipelines/x.toml", ())


ENTRY = Entry(3, Action.PUBLISH, (RefMove.named("refs/heads/main", ID, ID),), "A <a@b>", "w", 5, {"run": "x"})
PARTS = ActionParts("train", "rust", "model", "c", {"a": 1}, 0, {"shards": ID}, {"t": "1"})
RULES = b'format = 1\n[[rule]]\nwho = "a*"\nonly = ["docs/"]\n[[rule]]\nwho = "*"\n'
TOML = b'format = 1\nname = "x"\nuse = []\n[[stages]]\nname = "a"\ncommand = ["true"]\nmakes = "raw"\n'


FORMATS: Mapping[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "manifest": (MANIFEST.to_bytes(), Manifest.from_bytes),
    "ledger entry": (ENTRY.to_bytes(), Entry.from_bytes),
    "run": (RECORD.to_bytes(), RunRecord.from_bytes),
    "statement": (Statement(ID, ID, 4, {"refs/tags/v1.0.0": ID}).to_bytes(), Statement.from_bytes),
    "state": (document.StateDocument().to_bytes(), document.read),
    "generation": (json.dumps({"workbench": GENERATION.to_json()}).encode(), Generation.from_bytes),
    "action": (json.dumps(PARTS.to_json()).encode(), lambda data: ActionParts.from_json(_plain(data))),
    "event": (encode(Progress(1.0, 2.0, "files", {"MB/s": 3.0})).encode(), lambda data: decode(_text(data))),
    "walk event": (
        watch.encode(watch.StepEnded("train", "failed", error="x", seconds=1.0)).encode(),
        lambda data: watch.decode(_text(data)),
    ),
    "row": (json.dumps(rows.row(PACKAGE)).encode(), lambda data: rows.parse(rows.PackageRow, _plain(data), where="x")),
    "document": (
        json.dumps(Document.of("fn main() {}", path="a/b", package="a", license="MIT").row()).encode(),
        lambda data: Document.from_row(_plain(data)),
    ),
    "decoder": (json.dumps(CONFIG.to_json()).encode(), lambda data: DecoderConfig.from_json(_plain(data))),
    "tiers": ((HERE / "ci" / "tiers.toml").read_bytes(), lambda data: parse_tier(data, "full")),
    "pipeline": (TOML, _pipeline),
    "roles": (RULES, roles.read),
}
PIECES = [
    b"true", b"null", b"1.9", b'"1"', b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 4000, b'"\\ud800"', b"\xef\xbb\xbf",
    b"\xff", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\0", b"[" * 100, b'{"a":' * 50, b'"format": 9', b"=",
    b".", b"[a.b.c.d.e.f.g.h.i]\n", b"'''", b'"""', b"#", b"1979-05-27", b"\xe2\x80\xae", b"0x",
    b"18446744073709551616",
]  # fmt: skip


def _plain(data: bytes) -> Any:
    from workbench.domain.reading import read_or_tell

    return read_or_tell(lambda: parse_json(data), what="it")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _changed(data: bytes, chance: random.Random) -> bytes:
    """A few changes: pieces put in, taken out, doubled, swapped; a JSON value in the place of another."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at, until = sorted(chance.randrange(len(made) + 1) for _ in range(2))
        until = min(until, at + 12)
        kind = chance.randrange(5)
        if kind == 0:
            made[at:at] = chance.choice(PIECES)
        elif kind == 1:
            made[at:until] = chance.choice(PIECES)
        elif kind == 2:
            del made[at:until]
        elif kind == 3:
            made[at:at] = made[at : at + chance.randrange(1, 60)]
        elif made:
            made[at % len(made)] = chance.randrange(256)
    return bytes(made)


def _replaced(data: bytes, chance: random.Random) -> bytes:
    """One value of a JSON document replaced by another of any type."""
    value = json.loads(data)
    inner = value
    while isinstance(inner, dict | list) and inner:
        key = chance.choice(list(inner)) if isinstance(inner, dict) else chance.randrange(len(inner))
        if not isinstance(inner[key], dict | list) or not inner[key] or chance.random() < 0.3:
            inner[key] = chance.choice([None, True, 1.9, "1", -1, [], {}, [[]], 1 << 62, "\u202e", "x" * 5000, 0])
            break
        inner = inner[key]
    return json.dumps(value).encode()


def _try(name: str, number: int) -> None:
    good, read = FORMATS[name]
    chance = random.Random(f"{name}{number}")
    is_json = good[:1] in b"{["
    data = _replaced(good, chance) if is_json and number % 3 == 0 else _changed(good, chance)
    start_s = time.process_time()
    found, told = _read(read, data)
    assert time.process_time() - start_s < 1, data
    assert all(line.isprintable() for line in told.split("\n")), (data, told)
    if hasattr(found, "to_bytes"):
        assert read(found.to_bytes()).to_bytes() == found.to_bytes(), data


def _read(read: Callable[[bytes], Any], data: bytes) -> tuple[Any, str]:
    """The value, or what its one kind of error says."""
    try:
        return read(data), ""
    except (Corrupt, UserError) as error:
        return None, str(error)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_what_its_reader_reads(name: str) -> None:
    good, read = FORMATS[name]
    found = read(good)
    assert found is not None
    assert not isinstance(found, Log)


@pytest.mark.parametrize("name", FORMATS)
def test_a_changed_document_is_read_or_told_and_never_another_error(name: str) -> None:
    for number in range(300):
        _try(name, number)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_a_hundred_thousand_changed_documents_are_read_or_told(name: str) -> None:
    for number in range(300, 300 + 100_000 // len(FORMATS) + 1):
        _try(name, number)
