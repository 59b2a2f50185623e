"""``ports.store.Contracts``: records of contracts, as a tree of small JSON files under ``refs/workbench/contracts``.

What is kept can be computed again, so it needs no ledger entry: each write is a commit, moved by compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.domain.contract import LIMITS, ContractRecord, path_of
from workbench.domain.errors import Corrupt
from workbench.domain.ids import ObjectId
from workbench.domain.refs import CONTRACTS
from workbench.ports.store import Objects, Refs
from workbench.store.payload.swap import swap_until_won

_WHO = "workbench <workbench@localhost>"


class StoredContracts:
    def __init__(self, objects: Objects, refs: Refs, *, now_ms: Callable[[], int]) -> None:
        self._objects = objects
        self._refs = refs
        self._now_ms = now_ms

    def get(self, tree: ObjectId) -> ContractRecord | None:
        top = self._refs.get(str(CONTRACTS))
        if top is None:
            return None
        if self._objects.kind(top) != "commit":
            raise Corrupt(f"{CONTRACTS} is no commit", f"take it away: git update-ref -d {CONTRACTS}")
        found = self._objects.entry(top, path_of(tree))
        if found is None:
            return None
        again = "have it computed anew: workbench contract REV --again"
        if self._objects.kind(found.id) != "blob" or self._objects.size(found.id) > LIMITS.size_bytes:
            raise Corrupt(f"the record of the contract of {tree[:12]} is no record", again)
        record = ContractRecord.from_bytes(self._objects.read_blob(found.id))
        if record.tree != tree:
            raise Corrupt(f"the record of the contract of {tree[:12]} is that of {record.tree[:12]}", again)
        return record

    def put(self, record: ContractRecord) -> None:
        data = record.to_bytes()
        ContractRecord.from_bytes(data)  # what is written can be read

        def made(old: ObjectId | None) -> ObjectId | None:
            base = self._objects.commit(old).tree if old else None
            tree = self._objects.add_tree(base, {path_of(record.tree): data})
            if tree == base:
                return old
            return self._objects.add_commit(
                tree, parents=(old,) if old else (), message=f"contract of {record.tree}\n", who=_WHO,
                time_ms=self._now_ms(),
            )  # fmt: skip

        swap_until_won(self._refs, CONTRACTS, made)
