"""From tokens' bytes to text that can be shown: whole UTF-8 characters, cut before the first stop string.

Not here: tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Takes bytes as they come, gives text that will not change any more.

    A character split over tokens is held back until it is whole; text that may be the start of a stop string is held
    back until it is known. Bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self._given: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was given so far."""
        return "".join(self._given)

    def feed(self, data: bytes) -> str:
        """New text, often empty. After ``stopped`` nothing more comes."""
        return self._take(self._decoder.decode(data))

    def end(self) -> str:
        """What was still held back, when no more tokens come."""
        text = self._take(self._decoder.decode(b"", True))
        if self.stopped:
            return text
        rest, self._held = self._held, ""
        return text + self._give(rest)

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        held = self._held + text
        found = [at for at in (held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return self._give(held[: min(found)])
        keep = max((_overlap(held, stop) for stop in self._stop), default=0)
        cut = len(held) - keep
        self._held = held[cut:]
        return self._give(held[:cut])

    def _give(self, text: str) -> str:
        if text:
            self._given.append(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are a proper start of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
