"""What a push may do: every rule of ``domain.push`` and ``domain.tree_rules``, over the objects in quarantine.

Reads only; raises Refused with one line that says why and what to do. Not here: what the push starts (``planning``).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

from workbench.domain import push as rules
from workbench.domain import refs, roles
from workbench.domain.errors import Refused, UserError
from workbench.domain.ids import ZERO_ID, ObjectId
from workbench.domain.ledger import RefMove
from workbench.domain.push import Push
from workbench.domain.refs import BRANCHES, CHANNELS, MAIN, AgentVersion, ArtifactTag, Branch, Ref
from workbench.domain.roles import OWNER, ROLES, Role
from workbench.domain.tree_rules import BadTree, Measure, TreeLimits, TreeWalk, shown
from workbench.domain.version import Version
from workbench.hub.changes import changed_paths, find
from workbench.hub.commits import RawCommit, is_ancestor, new_commits, read_commit, read_tag
from workbench.hub.objects import PushedObjects
from workbench.hub.pushed_artifact import check_artifact
from workbench.hub.work import Work
from workbench.ports.store import Refs

SOURCE = TreeLimits()
PAYLOAD = TreeLimits(blob_bytes=None)
MAX_CLEAN = 200_000


@dataclass
class CleanTrees:
    """Ids of trees that were walked and found clean, with their measures; forgotten when there are very many."""

    source: MutableMapping[ObjectId, Measure] = field(default_factory=dict)
    payload: MutableMapping[ObjectId, Measure] = field(default_factory=dict)
    artifacts: set[ObjectId] = field(default_factory=set)  # whose files are what their manifest says

    def trim(self) -> None:
        for memo in (self.source, self.payload, self.artifacts):
            if len(memo) > MAX_CLEAN:
                memo.clear()


@dataclass(frozen=True)
class Judged:
    """A push that may be: what it changes on main, what it starts, and what its author is told."""

    push: Push
    main: ObjectId | None  # where main will stand
    changed: frozenset[str]  # paths that differ on main
    work: tuple[Work, ...] | None = None  # None: the worker decides it
    lines: tuple[str, ...] = ()

    @property
    def starts(self) -> bool:
        """Whether the push starts something, as far as is known."""
        return self.work is None or bool(self.work)

    def with_work(self, work: tuple[Work, ...] | None, lines: Sequence[str] = ()) -> Judged:
        return replace(self, work=work, lines=tuple(lines))


def judge(push: Push, objects: PushedObjects, current: Refs, clean: CleanTrees) -> Judged:
    """Check a whole push against the refs as they stand. Refused names the first rule that it breaks."""
    makes_branch = any(isinstance(move.ref, Branch) and move.old == ZERO_ID for move in push.moves)
    channels = [ref.removeprefix(CHANNELS) for ref in current.all(CHANNELS)] if makes_branch else []
    moved_refs = [rules.judge_name(move, channels) for move in push.moves]
    if not moved_refs:
        raise Refused("an empty push", "name what to push, for example: git push hub main")
    before = current.get(str(MAIN))
    moved = push.move(MAIN)
    main = moved.new if moved is not None else before
    for ref, move in zip(moved_refs, push.moves, strict=True):
        if move.new == ZERO_ID:
            continue
        if isinstance(ref, AgentVersion | ArtifactTag):
            _judge_tag(ref, move, objects, clean, main)
        else:
            _judge_branch(ref, move, objects, clean)
    _judge_versions(push.moves, current, is_owner=push.pusher == OWNER)
    changed = changed_paths(objects, before or ZERO_ID, moved.new) if moved is not None else frozenset[str]()
    roles.judge(push.pusher, moved_refs, changed, _roles(objects, before))
    if moved is not None and rules.under_any(changed, (roles.FILE,)):
        _read_roles(objects, moved.new)
    if push.options.promote:
        rules.judge_channel(push.options.promote, [ref.removeprefix(BRANCHES) for ref in current.all(BRANCHES)])
        is_on_main = any(ref == MAIN or isinstance(ref, AgentVersion) for ref in moved_refs)
        if push.pusher != OWNER and not is_on_main:  # what the table forbids on main, it does not see on a branch
            raise Refused(
                f"{shown(push.pusher)} may promote a commit of main alone, and this push moves none",
                "push it to main with the option; the hub's owner can promote a branch",
            )
    clean.trim()
    return Judged(push, main, changed)


def _judge_branch(ref: Ref, move: RefMove, objects: PushedObjects, clean: CleanTrees) -> None:
    label = ref.name if isinstance(ref, Branch) else str(ref)
    walk = _walk(objects, clean.source, SOURCE)
    for commit in new_commits(objects, move.new):
        _check_tree(walk, commit, f"{label} {commit.id[:10]}")
    if rules.needs_fast_forward(ref) and move.old != ZERO_ID and not is_ancestor(objects, move.old, move.new):
        raise Refused(
            f"{label} would lose commits: {move.new[:10]} does not follow {move.old[:10]}",
            "fetch, rebase or merge, and push again",
        )


def _judge_tag(
    ref: AgentVersion | ArtifactTag,
    move: RefMove,
    objects: PushedObjects,
    clean: CleanTrees,
    main: ObjectId | None,
) -> None:
    commit = _tagged(ref, move.new, objects)
    if isinstance(ref, ArtifactTag):
        _check_artifact(ref, commit, objects, clean)
        return
    if main is None or not is_ancestor(objects, commit.id, main):
        raise Refused(f"version {ref.short} is not on main", "push main first, or tag a commit of main")
    _check_tree(_walk(objects, clean.source, SOURCE), commit, ref.short)


def judge_carried(tags: Mapping[str, ObjectId], objects: PushedObjects) -> None:
    """Check tags (full names) that come in by a bundle as those of a push are: the same rules for tag objects, trees,
    manifests and checksums. Not those of order and of main: a bundle may bring old versions, and brings no branch."""
    clean = CleanTrees()
    for name, id in sorted(tags.items()):
        ref = refs.parse(name)
        assert isinstance(ref, AgentVersion | ArtifactTag), name
        rules.judge_room(ref)
        commit = _tagged(ref, id, objects)
        if isinstance(ref, ArtifactTag):
            _check_artifact(ref, commit, objects, clean)
            continue
        walk = _walk(objects, clean.source, SOURCE)
        for each in new_commits(objects, commit.id):
            _check_tree(walk, each, f"{ref.short} {each.id[:10]}")


def _tagged(ref: AgentVersion | ArtifactTag, id: ObjectId, objects: PushedObjects) -> RawCommit:
    """The commit that an annotated tag of that name names."""
    found = objects.header(id)
    if found is None or found[0] != "tag":
        raise Refused(f"tag {ref.short} is not annotated", f"make it with `git tag -a {ref.short}`")
    tag = read_tag(objects, id)
    if tag.name != ref.short:
        raise Refused(f"tag {ref.short} calls itself {shown(tag.name)}", "push it under the name that it was made with")
    if tag.kind != "commit":
        raise Refused(f"tag {ref.short} names a {shown(tag.kind)}, not a commit", "tag the commit itself")
    return read_commit(objects, tag.target)


def _check_artifact(ref: ArtifactTag, commit: RawCommit, objects: PushedObjects, clean: CleanTrees) -> None:
    _check_tree(_walk(objects, clean.payload, PAYLOAD), commit, ref.short)
    check_artifact(objects, ref, commit, clean.artifacts)


def _judge_versions(moves: Sequence[RefMove], current: Refs, *, is_owner: bool) -> None:
    """New versions rise, in each family by itself, also among those of one push."""
    latest: dict[str, list[Version]] = {}
    tags = [m.ref for m in moves if isinstance(m.ref, AgentVersion | ArtifactTag) and m.old == ZERO_ID]
    for ref in sorted(tags, key=lambda tag: (rules.family(tag), tag.version)):
        prefix = rules.family(ref)
        if prefix not in latest:
            latest[prefix] = _versions(current, prefix)
        rules.judge_version(ref, latest[prefix], is_owner=is_owner)
        latest[prefix].append(ref.version)


def _versions(current: Refs, prefix: str) -> list[Version]:
    found = []
    for name in current.all(prefix):
        if "/" not in name[len(prefix) :]:
            try:
                found.append(Version.parse(name[len(prefix) :]))
            except UserError:  # a tag from before the hub had a policy
                continue
    return found


def _walk(objects: PushedObjects, clean: MutableMapping[ObjectId, Measure], limits: TreeLimits) -> TreeWalk:
    return TreeWalk(header=objects.header, read=objects.read, clean=clean, limits=limits)


def _check_tree(walk: TreeWalk, commit: RawCommit, label: str) -> None:
    try:
        walk.check(commit.tree)
    except BadTree as error:
        raise Refused(f"{label}: {error.problem.what}", f"{error.problem.fix} ({error.problem.rule})") from error


def _roles(objects: PushedObjects, main: ObjectId | None) -> tuple[Role, ...]:
    """The table on main as it stood before the push, so that nobody gives a right to themselves."""
    try:
        return _read_roles(objects, main) if main is not None else ROLES
    except Refused:  # it came before the hub had a policy
        return ROLES


def _read_roles(objects: PushedObjects, main: ObjectId) -> tuple[Role, ...]:
    entry = find(objects, read_commit(objects, main).tree, roles.FILE)
    if entry is None:
        return ROLES
    return roles.read(objects.read(entry.id))
