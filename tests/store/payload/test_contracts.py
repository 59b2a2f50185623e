"""Records of contracts: kept by the tree of agents/, replaced, written by many at once; what is no record is told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.contract import ContractRecord, path_of, read_answer
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.ids import ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.reading import BadInput
from workbench.domain.refs import CONTRACTS

CONTRACT = {"format": 1, "tools": {"f": {"input": {"properties": {"a": {"type": "string"}}}, "output": {}}}}
MAKERS = {"python": "3.11", "pydantic": "2.0"}


def tree(number: int) -> ObjectId:
    return ObjectId(f"{number:040x}")


def test_a_record_comes_back_and_is_replaced(repository: Any) -> None:
    assert repository.contracts.get(tree(1)) is None
    first, second = ContractRecord(tree(1), MAKERS, CONTRACT), ContractRecord(tree(1), MAKERS, None, "no tool")
    other = ContractRecord(tree(2), MAKERS, CONTRACT)
    for record in (first, other):
        repository.contracts.put(record)
    assert (repository.contracts.get(tree(1)), repository.contracts.get(tree(2))) == (first, other)
    repository.contracts.put(second)
    assert (repository.contracts.get(tree(1)), repository.contracts.get(tree(2))) == (second, other)
    head = repository.refs.get(str(CONTRACTS))
    repository.contracts.put(second)
    assert repository.refs.get(str(CONTRACTS)) == head
    assert len(repository.objects.history(head)) == 3


def test_many_may_write_at_once(repository: Any) -> None:
    records = [ContractRecord(tree(number), MAKERS, None, "no tool") for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(repository.contracts.put, records))
    assert [repository.contracts.get(record.tree) for record in records] == records


def test_what_is_no_record_is_corrupt_and_can_be_written_over(repository: Any) -> None:
    objects = repository.objects
    good = ContractRecord(tree(1), MAKERS, CONTRACT)
    other = ContractRecord(tree(2), MAKERS, CONTRACT).to_bytes()
    for damage in (
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        other,
        bytes(2 << 20),
        good.to_bytes().replace(b'"f"', b'"\\n"'),
    ):
        made = objects.add_commit(
            objects.add_tree(None, {path_of(tree(1)): damage}), parents=(), message="d\n", who="a <a@b>", time_ms=0
        )
        old = repository.refs.get(str(CONTRACTS))
        repository.refs.swap([RefMove(CONTRACTS, old, made) if old else RefMove(CONTRACTS, new=made)])
        with pytest.raises(Corrupt):
            repository.contracts.get(tree(1))
        repository.contracts.put(good)
        assert repository.contracts.get(tree(1)) == good


@pytest.mark.parametrize("kind", ["blob", "a folder"])
def test_a_ref_or_a_path_of_another_kind_is_corrupt(repository: Any, kind: str) -> None:
    objects = repository.objects
    made = objects.add_blob(b"x")
    if kind == "a folder":
        inside = objects.add_tree(None, {f"{path_of(tree(1))}/x": b"x"})
        made = objects.add_commit(inside, parents=(), message="d\n", who="a <a@b>", time_ms=0)
    repository.refs.swap([RefMove(CONTRACTS, new=made)])
    with pytest.raises(Corrupt):
        repository.contracts.get(tree(1))


def test_a_record_says_either_what_or_why() -> None:
    for contract, why in ((None, ""), (CONTRACT, "no")):
        with pytest.raises(UserError):
            ContractRecord(tree(1), MAKERS, contract, why)


WORDS = [
    "format",
    "contract",
    "tools",
    "why",
    "f",
    "input",
    "output",
    "properties",
    "anyOf",
    "$ref",
    "$defs",
    "required",
    "enum",
    "items",
    "minimum",
    "type",
    "additionalProperties",
    "prefixItems",
    "tree",
    "made_by",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_answered_is_read_or_refused(data: bytes) -> None:
    for read in (read_answer, ContractRecord.from_bytes):
        try:
            read(data)
        except (BadInput, Corrupt):
            continue
