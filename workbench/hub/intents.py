"""What an accepted push asked for: its run id, options and author, kept until the worker has recorded them in the run.

Written by the policy before the refs move, so an intent may be of a push that never happened: only refs say what did. A
lost intent costs the options, never the work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.ids import Ulid, object_id, ulid
from workbench.domain.ledger import RefMove
from workbench.domain.push import PushOptions
from workbench.system import durable

FORMAT = 1
KEPT_MS = 3600_000  # an intent whose push did not happen


@dataclass(frozen=True)
class Intent:
    run: Ulid
    moves: tuple[RefMove, ...]
    options: PushOptions
    pusher: str
    time_ms: int
    lines: tuple[str, ...] = field(default=())  # what the pusher was told

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "run": self.run,
            "moves": [[str(m.ref), m.old, m.new] for m in self.moves],
            "options": self.options.to_json(),
            "pusher": self.pusher,
            "time_ms": self.time_ms,
            "lines": list(self.lines),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Intent:
        if raw["format"] != FORMAT:
            raise ValueError(raw["format"])
        return cls(
            run=ulid(raw["run"]),
            moves=tuple(RefMove.named(str(ref), object_id(old), object_id(new)) for ref, old, new in raw["moves"]),
            options=PushOptions.from_json(raw["options"]),
            pusher=str(raw["pusher"]),
            time_ms=int(raw["time_ms"]),
            lines=tuple(str(line) for line in raw["lines"]),
        )


@dataclass(frozen=True)
class Intents:
    folder: Path

    def add(self, intent: Intent) -> None:
        """On disk when it returns."""
        durable.write_file(self.folder / f"{intent.run}.json", json.dumps(intent.to_json()).encode())

    def all(self) -> Sequence[Intent]:
        """Oldest first; files that cannot be read are passed over (their work is found without them)."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            intent = self._read(path)
            if intent is not None:
                found.append(intent)
        return found

    def get(self, run: Ulid) -> Intent | None:
        return self._read(self.folder / f"{run}.json")

    def remove(self, run: Ulid) -> None:
        (self.folder / f"{run}.json").unlink(missing_ok=True)

    def sweep(self, keep: Sequence[Ulid], now_ms: int) -> None:
        """Forget old intents of pushes that did not happen, and files that are none."""
        for path in self.folder.iterdir():
            intent = self._read(path)
            with suppress(FileNotFoundError):  # it has got its name meanwhile
                written_ms = intent.time_ms if intent else int(path.stat().st_mtime * 1000)
                if not (intent and intent.run in keep) and now_ms - written_ms > KEPT_MS:
                    path.unlink()

    def _read(self, path: Path) -> Intent | None:
        try:
            return Intent.from_json(json.loads(path.read_bytes()))
        except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
