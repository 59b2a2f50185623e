"""What a push starts: work. A push may start several; its run has a step for each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from workbench.domain.ids import ObjectId, object_id
from workbench.domain.push import PushOptions
from workbench.domain.reading import checked, one_of, optional, read_or_tell, record, text
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.pipeline.plan import Mode


@dataclass(frozen=True)
class Work:
    """One thing to run: a pipeline (or one stage of it), or a tier, as ``source`` defines it."""

    kind: str  # "pipeline" or "tier"
    subject: str
    source: ObjectId
    why: str
    only: str = ""  # one stage alone
    of: str = ""  # of a tier: which branch other than main, or which of several versions, it tests
    bump: Bump | None = None  # at least this step of the release that it makes
    options: PushOptions = field(default_factory=PushOptions)

    @property
    def mode(self) -> Mode:
        bumps = {Kind.RELEASE.value: self.bump} if self.bump else {}
        return Mode(only=self.only, force=self.options.force, bumps=bumps)

    @property
    def label(self) -> str:
        """Tells it from the other work of its push."""
        only, of = f" ({self.only} alone)" if self.only else "", f" of {self.of}" if self.of else ""
        return f"{self.kind} {self.subject}{only}{of}"

    def to_json(self) -> dict[str, Any]:
        """As the push's ledger entry has it; the options stand beside it there."""
        every = {"kind": self.kind, "subject": self.subject, "source": self.source, "why": self.why}
        more = {"only": self.only, "of": self.of, "bump": self.bump.value if self.bump else ""}
        return every | {name: value for name, value in more.items() if value}

    @classmethod
    def from_json(cls, raw: Any, options: PushOptions) -> Work:
        """Corrupt for what ``to_json`` did not give."""
        made = read_or_tell(lambda: _WORK.read(raw, ""), what="the work of a push", hint="push again")
        return replace(made, options=options)


_WORK = record(
    Work,
    kind=text(),
    subject=text(),
    source=checked(text(), object_id),
    why=text(most=1 << 20),
    only=optional(text(), ""),
    of=optional(text(), ""),
    bump=optional(one_of(Bump), None),
)
