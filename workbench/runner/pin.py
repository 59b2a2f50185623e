"""Pinning a release: a new active state on main, the next version tag and ``active``, as one ledger entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.domain import refs
from workbench.domain.contract import Contract, ContractRecord
from workbench.domain.errors import NotFound, Refused
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.refs import AgentVersion
from workbench.domain.version import FIRST, Bump, Version
from workbench.ports.store import Artifact, Repository
from workbench.ports.work import Clock
from workbench.runner import contract as contracts
from workbench.runner.lookup import read_state
from workbench.state.document import ACTIVE_PATH, PinnedRelease

ContractOf = Callable[[ObjectId], ContractRecord]  # of a commit: the same libraries make both that are compared


@dataclass(frozen=True)
class Pinned:
    version: Version
    commit: ObjectId
    release: str
    bump: Bump | None  # None: the first version
    reasons: tuple[str, ...]
    entry: int


def pin(
    repository: Repository,
    artifact: Artifact,
    *,
    contract_of: ContractOf,
    clock: Clock,
    who: str,
    why: str = "",
    at_least: Bump = Bump.PATCH,
) -> Pinned:
    """Make ``artifact`` (a release) what main's agent answers with.

    The version follows from the contract of main compared with the newest version's; a person may ask for more, never
    for less. Refused when it is pinned already with the same code, and where main has no contract; Conflict when main
    or the channel moved meanwhile.
    """
    if artifact.tag.kind is not refs.Kind.RELEASE:
        raise Refused(f"{artifact.tag.short} is not a release", "pin a release: workbench log lists them")
    main = repository.refs.get(str(refs.MAIN))
    if main is None:
        raise NotFound("there is no main branch to pin on", "push one: git push hub main")
    old_state = read_state(repository, main)
    pinned = PinnedRelease(artifact=artifact.tag.short, tree=artifact.tree)
    newest = _newest(repository)
    active = repository.refs.get(str(refs.ACTIVE))
    if old_state.release == pinned and newest is not None and active == main == newest[1]:
        raise Refused(f"{pinned.artifact} is pinned already, as {newest[0]}", "nothing to do")
    version, bump, reasons = _next_version(contract_of, main, newest, at_least)
    state = old_state.model_copy(update={"release": pinned})
    now_ms = clock.now_ms()
    tree = repository.objects.add_tree(repository.objects.commit(main).tree, {ACTIVE_PATH: state.to_bytes()})
    message = f"Pin {pinned.artifact} as {version}\n" + (f"\n{why}\n" if why else "")
    trailers = [("Input", f"{pinned.artifact} {artifact.commit}")]
    commit = repository.objects.add_commit(
        tree, parents=(main,), message=message, who=who, time_ms=now_ms, trailers=trailers
    )
    tag_ref = AgentVersion(version)
    tag = repository.objects.add_tag(str(version), commit, message=message, who=who, time_ms=now_ms)
    moves = [
        RefMove(refs.MAIN, main, commit),
        RefMove(tag_ref, ZERO_ID, tag),
        RefMove(refs.ACTIVE, active or ZERO_ID, commit),
    ]
    evidence = {"release": pinned.artifact, "tree": pinned.tree, "version": str(version), "reasons": list(reasons)}
    entry = repository.ledger.change(Action.PIN, moves, who=who, why=why or f"pin {pinned.artifact}", evidence=evidence)
    return Pinned(version, commit, pinned.artifact, bump, reasons, entry.counter)


def _newest(repository: Repository) -> tuple[Version, ObjectId] | None:
    """The highest version and the commit it names."""
    versions = refs.agent_versions(repository.refs.all("refs/tags/"))
    if not versions:
        return None
    version, tag = versions[-1]
    return version, repository.objects.peel(tag)


def _next_version(
    contract_of: ContractOf, main: ObjectId, newest: tuple[Version, ObjectId] | None, at_least: Bump
) -> tuple[Version, Bump | None, tuple[str, ...]]:
    after = contract_of(main)
    if after.contract is None:
        raise Refused(
            f"main ({main[:12]}) has no contract: {after.why}", "mend agents/, commit and push, and pin again"
        )
    if newest is None:
        return FIRST, None, ("the first version",)
    bump, reasons = _compared(contract_of, newest, after.contract)
    if at_least.weight > bump.weight:
        bump, reasons = at_least, (*reasons, f"{at_least} was asked for")
    return newest[0].bump(bump), bump, reasons or ("the contract is the same",)


def _compared(
    contract_of: ContractOf, newest: tuple[Version, ObjectId], after: Contract
) -> tuple[Bump, tuple[str, ...]]:
    try:
        before = contract_of(newest[1])
    except NotFound as error:
        why = error.what
    else:
        if before.contract is not None:
            return contracts.compare(before.contract, after)
        why = before.why
    # A tag never changes, so it must not stand in the way for ever.
    return Bump.MAJOR, (f"what {newest[0]} promised cannot be known: {why}",)
