"""Tags as one file that any machine can take in, with no network: an ordinary Git bundle (gitformat-bundle).

It also carries a statement of where the ledger stood, so that an importer can tell an old bundle from a new one. What
comes in is quarantined, checked by git's fsck and by our own bounds, and only then becomes visible: one ledger entry.
Only tags travel; channels and branches are the receiving repository's own business.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.ids import ObjectId, Ulid, object_id
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import MANIFEST, Manifest
from workbench.domain.reading import Limits, load_json, mapping, record, text, whole
from workbench.domain.refs import INCOMING, AgentVersion, ArtifactTag, Incoming, parse
from workbench.store.git import process
from workbench.store.git.repository import GitRepository
from workbench.system import durable

FORMAT = 1
STATEMENT = "refs/workbench/statement"
_FILE = "statement.json"
_SIGNATURE = b"# v2 git bundle\n"
_MAX_REFS = 10_000
_MAX_LINE = 1024
_MAX_ARTIFACTS = 10_000  # in one lineage


@dataclass(frozen=True)
class Statement:
    """Where the ledger of the sender stood. ``origin`` is its first entry: it tells one ledger from another."""

    origin: str
    ledger: str
    counter: int
    refs: Mapping[str, str]

    def to_bytes(self) -> bytes:
        return canonical_lines({"format": FORMAT, **self.__dict__, "refs": dict(self.refs)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        what, hint = "the bundle's statement", "ask for the bundle again"
        return load_json(data, _SAID, what=what, limits=_LIMITS, error=Refused, hint=hint)


_LIMITS = Limits(size_bytes=8 << 20)
_ID = text(pattern=r"([0-9a-f]{40})?", says="an object id")
_SAID = record(Statement, format=(FORMAT,), origin=_ID, ledger=_ID, counter=whole(), refs=mapping(_ID))


# --- out --------------------------------------------------------------------------------------------------------------


def bundle(
    repository: GitRepository,
    refs: Sequence[str],
    out: Path,
    *,
    with_inputs: bool = False,
    check: Callable[[Sequence[ObjectId]], None] = lambda tags: None,
) -> list[str]:
    """Write these tags (full names) to the file ``out``, with ``with_inputs`` also all that they were made from; what
    it carries. Nothing is left of a file that could not be finished. ``check`` raises when what the tags reach is
    damaged: git copies what is packed without looking into it."""
    tags = {ref: _known(repository, ref) for ref in refs}
    if not tags:
        raise UserError("nothing to bundle", "name an artifact or a version, for example release/rust/v1.0.0")
    if with_inputs:
        _add_inputs(repository, tags)
    ordered = dict(sorted(tags.items()))
    check(list(ordered.values()))
    stated = _statement(repository, ordered)
    header = [f"{id} {ref}\n" for ref, id in {**ordered, STATEMENT: stated}.items()]
    with _finished_or_nothing(out) as file:
        file.write(_SIGNATURE + "".join(header).encode() + b"\n")
        file.flush()
        _pack(repository, [*ordered.values(), stated], file)
    return list(ordered)


def _known(repository: GitRepository, ref: str) -> ObjectId:
    if not isinstance(parse(ref), ArtifactTag | AgentVersion):
        raise UserError(f"{ref} is not a tag", "only artifacts and versions travel in a bundle")
    id = repository.refs.get(ref)
    if id is None:
        raise NotFound(f"there is no {ref}", "see `workbench log` for what there is")
    return id


def _add_inputs(repository: GitRepository, tags: dict[str, ObjectId]) -> None:
    waiting = list(tags.values())
    while waiting:
        commit = repository.objects.commit(repository.objects.peel(waiting.pop()))
        for key, value in commit.trailers:
            ref = f"refs/tags/{value.split(' ')[0]}"
            if key != "Input" or ref in tags:
                continue
            if len(tags) >= _MAX_ARTIFACTS:
                raise Refused(f"the lineage holds more than {_MAX_ARTIFACTS} artifacts", "bundle without --with-inputs")
            tags[ref] = _known(repository, ref)
            waiting.append(tags[ref])


def _statement(repository: GitRepository, refs: Mapping[str, ObjectId]) -> ObjectId:
    head = next(iter(repository.ledger.readable(1)), None)  # a ledger that is none says nothing
    origin = ""
    if head is not None:
        listed = process.run(repository.path, "rev-list", "--max-parents=0", head.commit)
        origin = listed.decode().split()[0]
    statement = Statement(origin, head.commit if head else "", head.counter if head else 0, refs)
    objects = repository.objects
    tree = objects.add_tree(None, {_FILE: statement.to_bytes()})
    time_ms = head.time_ms if head else 0
    return objects.add_commit(tree, parents=[], message="bundle", who="workbench", time_ms=time_ms)


def _pack(repository: GitRepository, tips: Sequence[ObjectId], file: BinaryIO) -> None:
    done = subprocess.run(
        process.command(
            repository.path,
            *["-c", "core.bigFileThreshold=1m", "-c", "pack.threads=1"],
            *["pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet"],
        ),
        input="".join(f"{tip}\n" for tip in tips).encode(),
        stdout=file,
        stderr=subprocess.PIPE,
        cwd=repository.path,
        env=process.environment(),
    )
    if done.returncode:
        raise process.explain("writing the bundle", done.stderr.decode(errors="replace"))


@contextmanager
def _finished_or_nothing(out: Path) -> Iterator[BinaryIO]:
    out = Path(os.path.realpath(out))  # a link stays one
    if out.exists() and not out.is_file():  # a folder, or a device that a rename would take the place of
        raise UserError(f"cannot write {out}: it is there and is no plain file", "give the path of a file")
    try:
        fresh = out.with_name(f".{out.name}.{secrets.token_hex(4)}")  # not by mkstemp: who may read it, the umask says
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}", "give a path that you may write to") from error
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        durable.rename(fresh, out)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


# --- in ---------------------------------------------------------------------------------------------------------------


Check = Callable[[Path, Mapping[str, ObjectId]], None]


def unbundle(
    file: Path, repository: GitRepository, *, who: str, check: Check = lambda folder, tags: None, incoming: str = ""
) -> list[str]:
    """Take in the tags of a bundle; those that were new here. All or nothing, and only after every check.

    ``incoming``: an id below which they lie until somebody trusts them; without it they get their names at once.
    Refused: a tag that exists with another value (with ``incoming`` only when it is trusted), a ref that is no tag, an
    object that git's fsck or our bounds refuse. ``check`` is given the folder of the objects that come in, and the new
    tags; what it raises refuses the bundle. The wiring has it judge them as those of a push, payload and all: the store
    does not know what a manifest promises. What the bundle states of its ledger is recorded, and decides nothing:
    whoever writes a bundle can state anything.
    """
    with _opened(file) as stream:
        refs = read_header(stream)
        stated = refs.pop(STATEMENT, None)
        new = _new(repository, refs, is_trusted=not incoming)
        if not new:
            return []
        with _quarantine(repository.path) as folder:
            _index(repository, stream, folder)
            with GitRepository(repository.path, object_dirs=[folder]) as view:
                statement = _check_statement(view, stated, refs)
                for ref, id in refs.items():
                    _check_tag(view, ref, id)
            _check_connected(repository.path, folder, list(refs.values()))
            check(folder, new)
            _migrate(folder, repository.path / "objects")
    moves = [RefMove(Incoming(Ulid(incoming), _tag(ref)) if incoming else _tag(ref), new=id) for ref, id in new.items()]
    evidence: dict[str, object] = {"origin": statement.origin, "ledger": statement.ledger, "counter": statement.counter}
    if incoming:
        evidence["incoming"] = incoming
    repository.ledger.change(Action.UNBUNDLE, moves, who=who, why=f"unbundle {_readable(file.name)}", evidence=evidence)
    return list(new)


def _tag(ref: str) -> AgentVersion | ArtifactTag:
    tag = parse(ref)
    assert isinstance(tag, AgentVersion | ArtifactTag), ref  # see ``read_header``
    return tag


def _readable(name: str) -> str:
    """A file's name may be any bytes."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _opened(file: Path) -> BinaryIO:
    try:
        return open(file, "rb")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", "give the path of a bundle") from error


def read_header(stream: BinaryIO) -> dict[str, ObjectId]:
    """The refs of a bundle; the stream then stands at its pack. Bounded, whatever the file holds."""
    if stream.readline(_MAX_LINE) != _SIGNATURE:
        raise Refused(
            "this is not a bundle of format 2", "make it with `workbench bundle` or `git bundle create --version=2`"
        )
    refs: dict[str, ObjectId] = {}
    while (line := stream.readline(_MAX_LINE)) != b"\n":
        if line.startswith(b"-"):
            raise Refused("the bundle needs commits that it does not carry", "make one without `^` or `--since`")
        if not line.endswith(b"\n") or len(refs) >= _MAX_REFS:
            raise Refused("the bundle's header is cut off, or too long", "ask for the bundle again")
        id, _, ref = line[:-1].decode("utf-8", "replace").partition(" ")
        if ref == "HEAD":
            continue
        if ref != STATEMENT and not isinstance(parse(ref), ArtifactTag | AgentVersion):
            raise Refused(f"the bundle carries {ref}, which is no tag", "only artifacts and versions are taken in")
        if refs.setdefault(ref, object_id(id)) != id:
            raise Refused(f"the bundle names {ref} twice", "ask for the bundle again")
    return refs


def _new(repository: GitRepository, refs: Mapping[str, ObjectId], *, is_trusted: bool) -> dict[str, ObjectId]:
    """The tags that are not here. For those that nobody trusts yet, what lies beside them untrusted counts as well."""
    new = {}
    lying = (
        set() if is_trusted else {(ref.partition("/tags/")[2], id) for ref, id in repository.refs.all(INCOMING).items()}
    )
    for ref, id in refs.items():
        current = repository.refs.get(ref)
        if current is None or (current != id and not is_trusted):
            if (ref.removeprefix("refs/tags/"), id) not in lying:
                new[ref] = id
        elif current != id:
            raise Refused(
                f"{ref.removeprefix('refs/tags/')} exists here as {current}, and is {id} in the bundle",
                "a tag never changes: unbundle into another repository, or ask for a version of another number",
            )
    return new


@contextmanager
def _quarantine(git_dir: Path) -> Iterator[Path]:
    """A folder of objects beside the real ones; the name is git's, so that maintenance sweeps what a kill leaves."""
    folder = Path(tempfile.mkdtemp(prefix="tmp_objdir-incoming-", dir=git_dir / "objects"))
    try:
        (folder / "pack").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quarantined(git_dir: Path, incoming: Path) -> dict[str, str]:
    return {**process.environment([git_dir / "objects"]), "GIT_OBJECT_DIRECTORY": os.fspath(incoming)}


def _index(repository: GitRepository, stream: BinaryIO, incoming: Path) -> None:
    arguments = ["-c", "core.bigFileThreshold=1m", "index-pack", "--stdin", "--strict"]
    position = stream.tell()  # the child reads through the descriptor, which knows nothing of our buffer
    os.lseek(stream.fileno(), position, os.SEEK_SET)
    done = subprocess.run(
        process.command(repository.path, *arguments),
        stdin=stream,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=repository.path,
        env=_quarantined(repository.path, incoming),
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        if "No space left" in said:
            raise process.explain("taking in the bundle", said)
        raise Refused(f"the bundle's objects are refused: {' '.join(said.split())}", "ask for the bundle again")


def _check_statement(view: GitRepository, stated: ObjectId | None, refs: Mapping[str, ObjectId]) -> Statement:
    if stated is None:
        return Statement("", "", 0, refs)  # made by plain git: nothing is claimed, so nothing can be old
    statement = Statement.from_bytes(view.objects.read_file(stated, _FILE))
    if dict(statement.refs) != dict(refs):
        raise Refused("the bundle's refs are not those that its statement names", "ask for the bundle again")
    return statement


def _check_tag(view: GitRepository, ref: str, id: ObjectId) -> None:
    objects = view.objects
    name = parse(ref)
    if objects.kind(id) != "tag":
        raise Refused(f"{ref} is not an annotated tag", "ask for the bundle again")
    commit = objects.commit(objects.peel(id))
    objects.measure(commit.tree)
    if isinstance(name, ArtifactTag):
        manifest = Manifest.from_bytes(objects.read_file(commit.tree, MANIFEST))
        if (manifest.kind, manifest.name) != (name.kind, name.name) or commit.parents:
            raise Refused(
                f"{ref} holds {manifest.kind}/{manifest.name}{' with a parent' if commit.parents else ''}",
                "an artifact is a parentless commit whose manifest has its tag's kind and name",
            )


def _check_connected(git_dir: Path, incoming: Path, tips: Sequence[ObjectId]) -> None:
    """Everything that the tags reach is here or in the bundle."""
    arguments = ["rev-list", "--objects", "--stdin", "--not", "--all", "--quiet"]
    wanted = "".join(f"{tip}\n" for tip in tips).encode()
    done = process.attempt(git_dir, *arguments, stdin=wanted, env=_quarantined(git_dir, incoming))
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise Refused(f"the bundle is not complete: {said}", "ask for the bundle again")


def _migrate(incoming: Path, objects: Path) -> None:
    """Into the real folder, each pack's index last: until then nobody looks at the pack."""
    order = {".idx": 1}
    for path in sorted((incoming / "pack").iterdir(), key=lambda path: order.get(path.suffix, 0)):
        target = objects / "pack" / path.name
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    durable.sync_folder(objects / "pack")
