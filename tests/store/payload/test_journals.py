"""Journals: what was acknowledged is there, whatever happens; what was cut off is not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.errors import Corrupt, Refused, UserError
from workbench.domain.refs import Journal
from workbench.store.payload import journals as journals_module
from workbench.store.payload.journals import StoredJournals


def opened(repository: Any, folder: Path) -> StoredJournals:
    return StoredJournals(repository.objects, repository.refs, folder, now_ms=lambda: 1_700_000_000_000)


def numbers(journals: Any, stream: str = "s", after: int = -1) -> list[int]:
    return [number for number, _ in journals.read(stream, after)]


def test_records_come_back_in_order_open_or_sealed(repository: Any) -> None:
    journals = repository.journals
    assert list(journals.read("s")) == []
    assert journals.seal("s") is None
    records = [{"n": n, "text": "zeile\nü"} for n in range(10)]
    for n, record in enumerate(records):
        assert journals.append("s", record) == n
        if n in (3, 4, 8):
            assert journals.seal("s") == repository.refs.get(str(Journal("s")))
    assert [record for _, record in journals.read("s")] == records
    assert numbers(journals, after=3) == list(range(4, 10))
    assert numbers(journals, after=99) == []
    assert journals.append("other", {}) == 0


def test_sealing_makes_one_commit_on_the_one_before(repository: Any) -> None:
    journals = repository.journals
    for n in range(3):
        journals.append("s", {"n": n})
        last = journals.seal("s")
    assert journals.seal("s") == last
    history = repository.objects.history(last)
    assert [commit.message.splitlines()[0] for commit in history] == [f"journal s: {n} to {n}" for n in (2, 1, 0)]
    paths = [entry.path for entry in repository.objects.walk(last)]
    assert paths == [f"000000/{n:012d}-{n:012d}" for n in range(3)] + ["format"]


def test_a_full_segment_is_sealed_by_itself(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals_module, "SEGMENT_MAX", 1000)
    for n in range(50):
        repository.journals.append("s", {"n": n, "fill": "x" * 100})
    assert numbers(repository.journals) == list(range(50))
    assert repository.refs.get(str(Journal("s"))) is not None


def test_killed_at_any_byte_nothing_acknowledged_is_lost(repository: Any, tmp_path: Path) -> None:
    journals = opened(repository, tmp_path / "j")
    ends = []
    for n in range(4):
        journals.append("s", {"n": n, "text": "ü" * n})
        ends.append((tmp_path / "j" / "s.open").stat().st_size)
    data = (tmp_path / "j" / "s.open").read_bytes()
    for cut in range(len(data) + 1):
        (tmp_path / "j" / "s.open").write_bytes(data[:cut])
        acknowledged = sum(end <= cut for end in ends)
        again = opened(repository, tmp_path / "j")
        assert numbers(again) == list(range(acknowledged))
        assert again.append("s", {"after": cut}) == acknowledged
        assert numbers(again) == list(range(acknowledged + 1))


def test_killed_between_seal_and_removal_nothing_is_there_twice(repository: Any, tmp_path: Path) -> None:
    journals = opened(repository, tmp_path / "j")
    for n in range(3):
        journals.append("s", {"n": n})
    data = (tmp_path / "j" / "s.open").read_bytes()
    journals.seal("s")
    (tmp_path / "j" / "s.open").write_bytes(data)
    again = opened(repository, tmp_path / "j")
    assert numbers(again) == [0, 1, 2]
    assert again.append("s", {"n": 3}) == 3
    again.seal("s")
    assert [record["n"] for _, record in again.read("s")] == [0, 1, 2, 3]


def test_every_flipped_bit_of_an_open_record_is_noticed(repository: Any, tmp_path: Path) -> None:
    journals = opened(repository, tmp_path / "j")
    journals.append("s", {"text": "abc"})
    data = (tmp_path / "j" / "s.open").read_bytes()
    for bit in range(16, len(data) * 8):  # the number itself is checked by its place
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        (tmp_path / "j" / "s.open").write_bytes(bad)
        assert [record for _, record in opened(repository, tmp_path / "j").read("s")] in ([], [{"text": "abc"}])


def test_a_damaged_record_with_others_behind_it_is_corrupt_and_nothing_is_removed(
    repository: Any, tmp_path: Path
) -> None:
    journals, path = opened(repository, tmp_path / "j"), tmp_path / "j" / "s.open"
    for n in range(6):
        journals.append("s", {"n": n})
    lines = path.read_bytes().splitlines(keepends=True)
    for number in (0, 3, 4):
        damaged = bytearray(path.read_bytes())
        damaged[sum(map(len, lines[:number])) + 14] ^= 1
        path.write_bytes(damaged)
        again = opened(repository, tmp_path / "j")
        with pytest.raises(Corrupt, match=f"line {number + 1} of"):
            numbers(again)
        with pytest.raises(Corrupt, match=f"line {number + 1} of"):
            again.append("s", {})
        with pytest.raises(Corrupt, match=f"line {number + 1} of"):
            again.seal("s")
        assert path.read_bytes() == bytes(damaged)
        path.write_bytes(b"".join(lines))


def test_a_journal_whose_damaged_line_was_removed_goes_on_with_a_gap(repository: Any, tmp_path: Path) -> None:
    journals, path = opened(repository, tmp_path / "j"), tmp_path / "j" / "s.open"
    for n in range(6):
        journals.append("s", {"n": n})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    again = opened(repository, tmp_path / "j")
    assert again.append("s", {"n": 6}) == 6
    assert numbers(again) == [0, 1, 3, 4, 5, 6]
    assert again.seal("s") is not None
    assert numbers(again) == [0, 1, 3, 4, 5, 6]


def test_a_damaged_segment_is_corrupt(repository: Any, lab: Any) -> None:
    tree = repository.objects.add_tree(None, {"format": b"1\n", "000000/000000000000-000000000001": b"0 00000000 {}\n"})
    commit = repository.objects.add_commit(tree, parents=(), message="x", who=lab.who, time_ms=0)
    from workbench.domain.ledger import RefMove

    repository.refs.swap([RefMove(Journal("s"), new=commit)])
    with pytest.raises(Corrupt, match="segment 0 to 1"):
        numbers(repository.journals)


def test_wrong_names_and_huge_records_are_refused(repository: Any) -> None:
    with pytest.raises(UserError):
        repository.journals.append("../x", {})
    with pytest.raises(Refused, match="store large data as payload"):
        repository.journals.append("s", {"text": "x" * (5 << 20)})
    assert numbers(repository.journals) == []


_APPEND = """
import sys
from pathlib import Path
from workbench.store.git.repository import GitRepository
hub, who, count = sys.argv[1:]
with GitRepository(Path(hub)) as repository:
    for n in range(int(count)):
        number = repository.journals.append("s", {"who": who, "n": n})
        print(number, flush=True)
        if n % 7 == 6:
            repository.journals.seal("s")
"""


def test_several_appenders_killed_at_random_lose_nothing_acknowledged(hub: Any) -> None:
    command = [sys.executable, "-c", _APPEND, str(hub.path)]
    running = [
        subprocess.Popen([*command, f"w{n}", "40"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    pick = random.Random(8)
    acknowledged: list[tuple[int, str, int]] = []
    for index, process in enumerate(running):
        assert process.stdout is not None
        stop_after = pick.randrange(5, 35) if index < 2 else 40
        for n in range(stop_after):
            line = process.stdout.readline()
            if not line:
                break
            acknowledged.append((int(line), f"w{index}", n))
        if index < 2:
            os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate(timeout=120)
        acknowledged += [(int(line), f"w{index}", stop_after + n) for n, line in enumerate(rest.split())]
    found = {number: (record["who"], record["n"]) for number, record in hub.journals.read("s")}
    assert sorted(found) == list(range(len(found)))
    assert all(found[number] == (who, n) for number, who, n in acknowledged)
