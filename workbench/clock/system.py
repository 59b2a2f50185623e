"""The machine's clock."""

from __future__ import annotations

import os
import time

from workbench.domain.ids import Ulid, make_ulid


class SystemClock:
    """Wall-clock time, and ULIDs of it with the kernel's randomness."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def ulid(self) -> Ulid:
        return make_ulid(self.now_ms(), os.urandom(10))
