"""Which rows a step reads: each epoch a permutation of its own, keyed by (seed, epoch). No stream is kept, so a resumed
run needs nothing but the step's number."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


class RowOrder:
    """Rows of the split in the order of training: epoch after epoch, without end."""

    def __init__(self, rows: int, seed: int) -> None:
        assert rows > 0
        self._rows, self._seed = rows, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def at(self, position: int) -> int:
        epoch, place = divmod(position, self._rows)
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, self._permute(epoch)
        return int(self._permutation[place])

    def batch(self, step: int, size: int) -> list[int]:
        return [self.at(position) for position in range(step * size, (step + 1) * size)]

    def _permute(self, epoch: int) -> npt.NDArray[np.int64]:
        key = hashlib.sha256(f"order\n{self._seed}\n{epoch}".encode()).digest()
        bits = np.random.Philox(key=int.from_bytes(key[:16], "big")).random_raw(self._rows)
        return np.argsort(bits, kind="stable")
