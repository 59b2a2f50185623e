"""The ref grammar: every name the workbench reads or writes in Git, built and parsed here as typed values.

Nothing else spells a ref. ``parse(str(ref)) == ref`` for every value (a property test holds it).

==========================================  ==================================
``refs/heads/<branch>``                     Branch
``refs/tags/vX.Y.Z``                        AgentVersion
``refs/tags/<kind>/<name>/vX.Y.Z``          ArtifactTag
``refs/notes/evals``                        Notes
``refs/workbench/ledger``                   Ledger
``refs/workbench/channels/<name>``          Channel
``refs/workbench/cache``                    RunCache
``refs/workbench/contracts``                Contracts
``refs/workbench/runs/<ulid>``              RunRef
``refs/workbench/journal/<stream>``         Journal
``refs/workbench/incoming/<ulid>/tags/…``   Incoming
==========================================  ==================================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from workbench.domain import ids
from workbench.domain.errors import UserError
from workbench.domain.ids import ObjectId, Ulid
from workbench.domain.version import Version


class Kind(StrEnum):
    """What an artifact is, in the order in which the pipeline makes them."""

    RAW = "raw"
    FILTERED = "filtered"
    DATASET = "dataset"
    TOKENIZER = "tokenizer"
    SHARDS = "shards"
    MODEL = "model"
    METRICS = "metrics"
    RELEASE = "release"


_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?\Z")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*\Z")


def check_name(text: str, what: str = "name") -> str:
    """A name in a ref: lower case letters, digits, ``-`` and ``_`` inside, at most 64 characters."""
    if not _NAME.match(text):
        raise UserError(
            f"not a valid {what}: {text!r}",
            "use lower-case letters, digits, '-' and '_', starting and ending with a letter or digit (64 at most)",
        )
    return text


def check_branch(text: str) -> str:
    bad = not _BRANCH.match(text) or ".." in text or len(text) > 200
    if bad or any(part.endswith((".lock", ".")) for part in text.split("/")):
        raise UserError(f"not a valid branch name: {text!r}", "see git-check-ref-format(1)")
    return text


@dataclass(frozen=True, order=True)
class Branch:
    name: str

    def __post_init__(self) -> None:
        check_branch(self.name)

    def __str__(self) -> str:
        return f"refs/heads/{self.name}"


@dataclass(frozen=True, order=True)
class AgentVersion:
    """A version of the agent: code, active state and the release it pins."""

    version: Version

    @property
    def short(self) -> str:
        return str(self.version)

    def __str__(self) -> str:
        return f"refs/tags/{self.version}"


@dataclass(frozen=True, order=True)
class ArtifactTag:
    kind: Kind
    name: str
    version: Version

    def __post_init__(self) -> None:
        check_name(self.name, "artifact name")

    @property
    def short(self) -> str:
        """As people write it: ``tokenizer/rust/v1.2.0``."""
        return f"{self.kind}/{self.name}/{self.version}"

    @classmethod
    def parse(cls, short: str) -> ArtifactTag:
        parts = short.split("/")
        if len(parts) != 3 or parts[0] not in {kind.value for kind in Kind}:
            raise UserError(
                f"not an artifact: {short!r}", f"write KIND/NAME/vX.Y.Z, where KIND is one of {', '.join(Kind)}"
            )
        return cls(Kind(parts[0]), parts[1], Version.parse(parts[2]))

    def __str__(self) -> str:
        return f"refs/tags/{self.short}"


@dataclass(frozen=True, order=True)
class Notes:
    name: str = "evals"

    def __str__(self) -> str:
        return f"refs/notes/{self.name}"


@dataclass(frozen=True, order=True)
class Ledger:
    def __str__(self) -> str:
        return "refs/workbench/ledger"


@dataclass(frozen=True, order=True)
class Channel:
    name: str

    def __post_init__(self) -> None:
        check_name(self.name, "channel name")

    def __str__(self) -> str:
        return f"{CHANNELS}{self.name}"


@dataclass(frozen=True, order=True)
class RunCache:
    def __str__(self) -> str:
        return "refs/workbench/cache"


@dataclass(frozen=True, order=True)
class Contracts:
    """What the ``agents/`` of commits offer, recorded once (``domain.contract``)."""

    def __str__(self) -> str:
        return "refs/workbench/contracts"


@dataclass(frozen=True, order=True)
class RunRef:
    run: Ulid

    def __post_init__(self) -> None:
        ids.ulid(self.run)

    def __str__(self) -> str:
        return f"refs/workbench/runs/{self.run}"


@dataclass(frozen=True, order=True)
class Journal:
    stream: str

    def __post_init__(self) -> None:
        check_name(self.stream, "journal stream")

    def __str__(self) -> str:
        return f"refs/workbench/journal/{self.stream}"


@dataclass(frozen=True, order=True)
class Incoming:
    """What a bundle or an import brought and nobody trusts yet: the tag that it becomes when somebody does.

    An artifact of version v0.0.0 whose ref names a commit, not a tag, has no number yet: it gets the next one.
    """

    id: Ulid
    tag: AgentVersion | ArtifactTag

    def __post_init__(self) -> None:
        ids.ulid(self.id)

    @property
    def short(self) -> str:
        """As people write it: ``incoming/<id>/release/rust/v1.0.0``."""
        return f"incoming/{self.id}/{self.tag.short}"

    @classmethod
    def parse(cls, short: str) -> Incoming:
        word, _, rest = short.partition("/")
        id, _, tag = rest.partition("/")
        if word != "incoming" or not tag:
            raise UserError(f"not something that came in: {short!r}", "see `workbench incoming` for what lies there")
        return cls(ids.ulid(id), ArtifactTag.parse(tag) if "/" in tag else AgentVersion(Version.parse(tag)))

    def __str__(self) -> str:
        return f"{INCOMING}{self.id}/tags/{self.tag.short}"


INCOMING = "refs/workbench/incoming/"
Ref = (
    Incoming | Branch | AgentVersion | ArtifactTag | Notes | Ledger | Channel | RunCache | Contracts | RunRef | Journal
)


@dataclass(frozen=True, order=True)
class UnknownRef:
    """A name outside the grammar, and why it is: of an entry that was written under an older grammar, or of a ref that
    came in without our hooks. Nothing new gets such a name."""

    name: str
    what: str = field(default="", compare=False)
    hint: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.name


MAIN = Branch("main")
ACTIVE = Channel("active")
EVALS = Notes("evals")
LEDGER = Ledger()
RUN_CACHE = RunCache()
CONTRACTS = Contracts()
OWN_NAMESPACE = "refs/workbench/"
BRANCHES = "refs/heads/"
CHANNELS = "refs/workbench/channels/"


def agent_versions(tags: Mapping[str, ObjectId]) -> list[tuple[Version, ObjectId]]:
    """The agent's versions among refs and what they name, lowest first. Tags of other names are not ours: a clone may
    hold any (``backup``, ``release-2020``)."""
    found = []
    for name, value in tags.items():
        with suppress(UserError):
            ref = parse(name)
            if isinstance(ref, AgentVersion):
                found.append((ref.version, value))
    return sorted(found)


def meant_by(name: str) -> tuple[str, ...]:
    """The full refs that a person may mean by a short name; the first that exists is meant.

    What reads as a version, a channel, an artifact, a run or the beginning of a full ref is that and nothing else, so
    no branch stands in for it (``heads/v1.0.0`` names a branch). Any other name is a tag, a channel, a branch or a
    remote's branch, in this order: what only the hub makes goes before what anybody pushes.
    """
    first = name.partition("/")[0]
    if first == "refs":
        return (name,)
    if first in _FOLDERS:
        return (f"refs/{name}",)
    if first == "incoming":
        with suppress(UserError):
            return (str(Incoming.parse(name)),)
    if _ARTIFACT.match(name) or _is_version(name):
        return (f"refs/tags/{name}",)
    if name in KNOWN_CHANNELS:
        return (str(Channel(name)),)
    with suppress(UserError):
        return (str(RunRef(ids.ulid(name))),)
    if name == "HEAD" or re.fullmatch("[0-9a-f]{40}", name):
        return ()  # neither is a ref, whatever has that name
    return (f"refs/tags/{name}", f"{CHANNELS}{name}", f"{BRANCHES}{name}", f"refs/remotes/{name}")


KNOWN_CHANNELS = frozenset({"active", "canary"})
_FOLDERS = frozenset({"heads", "tags", "notes", "remotes", "workbench"})  # of refs/
_ARTIFACT = re.compile(rf"(?:{'|'.join(Kind)})(?:/[a-z0-9][a-z0-9_-]*(?:/v[0-9.]*)?)?\Z")


def _is_version(name: str) -> bool:
    """Whether it reads as a version, also as one that our grammar refuses (``v01.0.0``, ``v1.2.0-rc.1``)."""
    return re.match(r"v[0-9]+\.[0-9]+\.[0-9]+", name) is not None


def taken_name(name: str, channels: Collection[str] = ()) -> str:
    """What else a branch (or a channel) of this name would be read as, by git or by us; "" where nothing is.

    ``channels`` are those that exist, besides the known ones.
    """
    first = name.partition("/")[0]
    if first in ("refs", "stash") or first in _FOLDERS:
        return f"the ref refs/{name.removeprefix('refs/')}"
    if re.fullmatch("[A-Z_]*HEAD", name):
        return "a name of git's own"
    if name != MAIN.name and name.casefold() == MAIN.name:
        return "main, where case does not count"
    if _is_version(name):
        return "a version"
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", name):
        return "an object id"
    if name in KNOWN_CHANNELS or name in channels:
        return "a channel"
    return "an artifact" if _ARTIFACT.match(name) else ""


def parse(text: str) -> Ref:
    """Parse a full ref name; refuse what is not in the grammar."""
    if text.startswith("refs/heads/"):
        return Branch(text[11:])
    if text.startswith("refs/tags/"):
        rest = text[10:]
        return ArtifactTag.parse(rest) if "/" in rest else AgentVersion(Version.parse(rest))
    if text == "refs/notes/evals":
        return EVALS
    if text == str(LEDGER):
        return LEDGER
    if text == str(RUN_CACHE):
        return RUN_CACHE
    if text == str(CONTRACTS):
        return CONTRACTS
    for prefix, build in _PREFIXES.items():
        if text.startswith(prefix):
            return build(text[len(prefix) :])
    raise UserError(
        f"not a ref of a workspace: {text!r}",
        "known are refs/heads/<branch>, refs/tags/vX.Y.Z, refs/tags/<kind>/<name>/vX.Y.Z and refs/notes/evals",
    )


def parse_any(text: str) -> Ref | UnknownRef:
    """Parse a full ref name, keeping what is not in the grammar."""
    try:
        return parse(text)
    except UserError as error:
        return UnknownRef(text, error.what, error.hint)


def _channel(rest: str) -> Ref:
    return Channel(rest)


def _run(rest: str) -> Ref:
    return RunRef(ids.ulid(rest))


def _journal(rest: str) -> Ref:
    return Journal(rest)


def _incoming(rest: str) -> Ref:
    id, _, tag = rest.partition("/tags/")
    return Incoming.parse(f"incoming/{id}/{tag}")


_PREFIXES = {
    INCOMING: _incoming,
    CHANNELS: _channel,
    "refs/workbench/runs/": _run,
    "refs/workbench/journal/": _journal,
}
