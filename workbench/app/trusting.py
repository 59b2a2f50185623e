"""What a bundle or an import brought: it lies under ``refs/workbench/incoming/<id>/``, is read, and then trusted or
discarded. Until then it has no number and is nobody's newest, active or base.

A bundle's statement (which ledger it comes from, and how old it is) is told and decides nothing: its writer chose it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.domain import refs
from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.ids import ZERO_ID, ObjectId, Ulid, ulid_time_ms
from workbench.domain.ledger import Action, Entry, RefMove
from workbench.domain.manifest import MANIFEST, Manifest
from workbench.domain.push import judge_room
from workbench.domain.refs import ArtifactTag, Incoming
from workbench.domain.version import Bump
from workbench.ports.store import Repository, Staged

SHORTEST_ID = 6  # characters of an id that are enough where nothing else has them


@dataclass(frozen=True)
class Delivery:
    """What came in at once."""

    id: Ulid
    refs: Mapping[Incoming, ObjectId]
    why: str = ""  # of the ledger entry that took it in
    note: str = ""  # what the statement says that its reader may want to know

    @property
    def time_ms(self) -> int:
        return ulid_time_ms(self.id)


def deliveries(repository: Repository) -> Sequence[Delivery]:
    """All that nobody has trusted or discarded yet, oldest first."""
    found: dict[Ulid, dict[Incoming, ObjectId]] = {}
    for name, value in repository.refs.all(refs.INCOMING).items():
        try:
            ref = refs.parse(name)
        except UserError:
            continue  # `doctor` names it
        if isinstance(ref, Incoming):
            found.setdefault(ref.id, {})[ref] = value
    if not found:
        return []
    history = entries(repository)
    made = []
    for id, lying in sorted(found.items()):
        entry = next((entry for entry in history if entry.evidence.get("incoming") == id), None)
        made.append(Delivery(id, lying, entry.why if entry else "", older(entry, history) if entry else ""))
    return made


def entries(repository: Repository) -> Sequence[Entry]:
    """The whole ledger, newest first."""
    head = next(iter(repository.ledger.readable(1)), None)
    return repository.ledger.readable(head.counter) if head else []


def older(entry: Entry, history: Sequence[Entry]) -> str:
    """A sentence where an entry took in a bundle that is older, as it says itself, than one that came before."""
    made, origin = entry.evidence.get("counter", 0), entry.evidence.get("origin")
    newest = max((_made_at(each, origin) for each in history if each.counter < entry.counter), default=0)
    if not origin or not isinstance(made, int) or made >= newest:
        return ""
    return (
        f"it says that it was made at entry {made} of a ledger of which one of entry {newest} was taken in before: "
        "something in it may have been withdrawn since"
    )


def _made_at(entry: Entry, origin: Any) -> int:
    made = entry.evidence.get("counter")
    same = entry.action is Action.UNBUNDLE and entry.evidence.get("origin") == origin
    return made if same and isinstance(made, int) else 0


def find(repository: Repository, text: str) -> Delivery:
    """By its id, or the beginning or end of it."""
    there = deliveries(repository)
    wanted = text.removeprefix("incoming/").upper()
    fits = [each for each in there if len(wanted) >= SHORTEST_ID and each.id.startswith(wanted)]
    fits = fits or [each for each in there if len(wanted) >= SHORTEST_ID and each.id.endswith(wanted)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UserError(f"{text} fits {len(fits)} deliveries", "give more of the id: workbench incoming")
    near = difflib.get_close_matches(wanted, [each.id for each in there], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see `workbench incoming` for what lies there"
    raise NotFound(f"nothing came in as {text!r}, or it was dealt with already", hint)


def trust(repository: Repository, text: str, *, who: str) -> list[str]:
    """Give all of a delivery its names, as one ledger entry; those names. Refused where a tag exists here with another
    value: nothing is changed then."""
    delivery = find(repository, text)
    unnumbered = [(ref, id) for ref, id in delivery.refs.items() if repository.objects.kind(id) == "commit"]
    if unnumbered:
        return [_numbered(repository, ref, id, who) for ref, id in unnumbered]
    moves = [move for ref, id in delivery.refs.items() for move in _moves(repository, ref, id)]
    why = f"trust {delivery.id}: {delivery.why}" if delivery.why else f"trust {delivery.id}"
    repository.ledger.change(Action.TRUST, moves, who=who, why=why, evidence={"incoming": delivery.id})
    return [ref.tag.short for ref in delivery.refs]


def _moves(repository: Repository, ref: Incoming, id: ObjectId) -> Iterator[RefMove]:
    judge_room(ref.tag)
    current = repository.refs.get(str(ref.tag))
    if current not in (None, id):
        raise Refused(
            f"{ref.tag.short} exists here as {current}, and is {id} in {ref.id}",
            "a tag never changes: ask for a version of another number, or discard it: "
            f"workbench incoming --discard {ref.id}",
        )
    if current is None:
        yield RefMove(ref.tag, ZERO_ID, id)
    yield RefMove(ref, id, ZERO_ID)


def _numbered(repository: Repository, ref: Incoming, id: ObjectId, who: str) -> str:
    """An imported artifact gets the number after the newest."""
    assert isinstance(ref.tag, ArtifactTag)
    commit = repository.objects.commit(id)
    manifest = Manifest.from_bytes(repository.objects.read_file(commit.tree, MANIFEST))
    gone = RefMove(ref, id, ZERO_ID)
    made = repository.artifacts.publish(
        Staged(commit.tree, manifest), bump=Bump.MINOR, who=who, why=commit.message.strip(), trusted=gone
    )
    return made.tag.short


def discard(repository: Repository, text: str, *, who: str) -> Delivery:
    """Take the names of a delivery away; the next maintenance removes its objects. Returns the delivery."""
    delivery = find(repository, text)
    moves = [RefMove(ref, id, ZERO_ID) for ref, id in delivery.refs.items()]
    evidence = {"incoming": delivery.id}
    repository.ledger.change(Action.DISCARD, moves, who=who, why=f"discard {delivery.id}", evidence=evidence)
    return delivery
