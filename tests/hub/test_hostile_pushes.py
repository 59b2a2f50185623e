"""A hundred hostile object sets, handed to git-receive-pack without any client between."""

from __future__ import annotations

import importlib.util
import os
import resource
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
assert _spec
assert _spec.loader
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)
CASES = dict(hostile.cases())


@pytest.mark.parametrize("name", CASES)
def test_hostile_objects_are_refused_with_a_reason_and_change_nothing(
    shared_hub, objects, name: str, slowness: float
) -> None:
    before = shared_hub.source_refs()
    updates = CASES[name](objects, before)
    policy = shared_hub.process("policy")
    cpu_before = _cpu_s(policy) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    pushed = shared_hub.send(objects, updates)
    cpu_s = _cpu_s(policy) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - cpu_before
    assert not pushed.accepted
    said = [line for line in pushed.text.splitlines() if "refused" in line or "error" in line or "fatal" in line]
    assert said
    assert all(c >= " " or c == "\n" for c in said[0])
    assert shared_hub.source_refs() == before
    assert not list((shared_hub.path / "objects").glob("tmp_objdir*")), "the quarantine is gone"
    assert cpu_s < 1.0 * slowness
    assert _peak_mib(policy) < 256


def test_at_least_a_hundred_sets_are_tried() -> None:
    assert len(CASES) >= 100


def test_receiving_them_took_little_memory(shared_hub, objects) -> None:
    for name in ("bomb-10^10", "zeros-64MiB"):
        shared_hub.send(objects, CASES[name](objects, shared_hub.source_refs()))
    assert 0 < shared_hub.receive_peak_kib < 256 << 10


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
