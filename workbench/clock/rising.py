"""A clock whose run ids never fall back behind those that exist, though the machine's time does.

Runs are listed, resumed and forgotten in the order of their ids. After a battery died or a wrong year was set right,
new ids would sort before all old ones: the newest run would be the first to be forgotten. Times that people see stay
the machine's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from workbench.domain.ids import Ulid, make_ulid, ulid_time_ms
from workbench.ports.work import Clock


@dataclass
class RisingClock:
    """``newest`` gives the newest id that exists, or empty; it is asked once, before the first id is made."""

    clock: Clock
    newest: Callable[[], str]
    _latest: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def ulid(self) -> Ulid:
        with self._lock:
            if self._latest is None:
                self._latest = self.newest()
            made = self.clock.ulid()
            if made <= self._latest:
                made = make_ulid(ulid_time_ms(Ulid(self._latest)) + 1, os.urandom(10))
            self._latest = made
            return made
