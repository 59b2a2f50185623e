"""A ref that many may write at once, none of whom needs a ledger entry: compare-and-swap until it is won."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from workbench.domain.errors import Conflict
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.refs import Ref
from workbench.ports.store import Refs

_ATTEMPTS = 20
_BACKOFF_S = 0.01


def swap_until_won(refs: Refs, ref: Ref, made: Callable[[ObjectId | None], ObjectId | None]) -> None:
    """``made`` gives the commit to put in the place of the old one, or the old one where nothing changes."""
    for attempt in range(_ATTEMPTS):
        old = refs.get(str(ref))
        commit = made(old)
        if commit is None or commit == old:
            return
        try:
            return refs.swap([RefMove(ref, old or ZERO_ID, commit)])
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(random.uniform(0, _BACKOFF_S * 2 ** min(attempt, 6)))
