"""The contract of a commit: computed once, in the sandbox, within bounds, and recorded.

Nobody else imports ``agents/`` to know it. What the code does to the process that computes it (an endless loop, an
exit, a crash, endless memory) is an outcome: the record says why there is no contract. Where the sandbox itself is not
there, or fails, nothing is recorded.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import workbench
from workbench.app import wiring
from workbench.domain.contract import ANSWER, MAX_WHY, READY, ContractRecord, read_answer
from workbench.domain.errors import Corrupt, ToolMissing, UserError, WorldError
from workbench.domain.ids import ObjectId
from workbench.domain.reading import BadInput
from workbench.pipeline.code import module_digest
from workbench.ports.sandbox import Job, Limits, Outcome, Sandbox, SandboxResult
from workbench.ports.store import Repository
from workbench.runner import source
from workbench.sandbox import interpreter

LIMITS = Limits(
    wall_s=30.0, cpu_s=10, memory_bytes=1 << 30, file_bytes=1 << 20, processes=16, tmp_bytes=16 << 20,
    output_bytes=ANSWER.size_bytes + 1024,
)  # fmt: skip
_JOB = "workbench.runner.contract_job"


def contract_of(
    repository: Repository, commit: ObjectId, *, again: bool = False, sandbox: Sandbox | None = None
) -> ContractRecord:
    """The recorded contract of a commit; computed and recorded where none is that today's libraries made, or ``again``.
    ToolMissing, with what installs it, without a sandbox."""
    tree = source.tree_of(repository.objects, commit)
    found = _recorded(repository, tree)
    if found is not None and found.made_by == made_by() and not again:
        return found
    record = compute(repository, tree, sandbox or wiring.sandbox())
    repository.contracts.put(record)
    return record


def _recorded(repository: Repository, tree: ObjectId) -> ContractRecord | None:
    try:
        return repository.contracts.get(tree)
    except Corrupt:  # it is computed again
        return None


def maker(repository: Repository) -> Callable[[ObjectId], ContractRecord]:
    """``contract_of`` for who is about to rely on it (``pin``): what had no contract is tried again."""

    def make(commit: ObjectId) -> ContractRecord:
        found = contract_of(repository, commit)
        return found if found.contract is not None else contract_of(repository, commit, again=True)

    return make


@cache
def made_by() -> Mapping[str, str]:
    """The libraries that a contract depends on, and the digest of our own code that makes it."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, "pydantic": version("pydantic"), "workbench": module_digest(_JOB)}


def compute(
    repository: Repository, tree: ObjectId, sandbox: Sandbox, *, wall_s: float = LIMITS.wall_s
) -> ContractRecord:
    """The record of an ``agents/``, not kept anywhere yet. WorldError where the sandbox failed."""
    missing = sandbox.probe()
    if missing:
        raise ToolMissing(f"the contract is computed in a sandbox, and there is none here: {missing}")
    try:
        packed = source.packed(repository.objects, tree)
    except UserError as error:
        return _none(tree, error.what)
    job = Job(
        argv=("python", "-P", "-m", _JOB),
        python=("pydantic",),
        folders={"house/workbench": Path(workbench.__file__).parent},
        environment={"PYTHONPATH": f"{interpreter.PACKAGES}:/in/house"},
        stdin=packed,
        limits=replace(LIMITS, wall_s=wall_s),
    )
    return _judged(tree, sandbox.run(job), wall_s)


def _judged(tree: ObjectId, result: SandboxResult, wall_s: float) -> ContractRecord:
    if not result.stdout.startswith(READY):  # no code of agents/ has run: it is not its fault
        said = _plain(result.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
        raise WorldError(f"no Python starts in the sandbox: {said or result.outcome}", "`workbench doctor`")
    if (why := _died(result, wall_s)) or (why := "what it says is too long for a contract" if result.truncated else ""):
        return _none(tree, why)
    try:
        contract, why = read_answer(result.stdout.removeprefix(READY))
    except BadInput as error:
        return _none(tree, f"what its code says is no contract: {error}")
    return _none(tree, why or "its code does not say why") if contract is None else _record(tree, contract)


def _died(result: SandboxResult, wall_s: float) -> str:
    """What ended the process before it had answered; empty where it answered. An exit is seen by its missing answer."""
    match result.outcome:
        case Outcome.TIMEOUT:
            return f"loading it took more than {wall_s:.0f} s"
        case Outcome.MEMORY:
            return f"loading it took more than {LIMITS.memory_bytes >> 20} MiB of memory"
        case Outcome.KILLED if result.exit_code - 128 in (signal.SIGXCPU, signal.SIGKILL):
            return f"loading it took more than {LIMITS.cpu_s} s of processor time, or it was killed"
        case Outcome.KILLED:
            return f"its code crashed the process (signal {result.exit_code - 128})"
    if result.exit_code != 0 or result.stdout == READY:
        return f"its code ended the process while it was loaded (exit code {result.exit_code})"
    return ""


def _record(tree: ObjectId, contract: Mapping[str, object]) -> ContractRecord:
    return ContractRecord(tree, made_by(), contract)


def _none(tree: ObjectId, why: str) -> ContractRecord:
    return ContractRecord(tree, made_by(), None, _plain(why))


def _plain(text: str) -> str:
    """One line of a stranger's words, for a record and a terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= MAX_WHY else f"{shown[: MAX_WHY - 1]}…"
