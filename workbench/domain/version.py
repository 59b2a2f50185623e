"""Semantic versions of artifacts and agents: ``vMAJOR.MINOR.PATCH`` and nothing else. Source: semver.org 2.0.0.

Pre-release and build parts are not part of our grammar, so the domain needs no library for it
(decision record 0003).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from workbench.domain.errors import UserError

GIVEN_MAX = 999_999  # of a number in a version that comes from outside; what is computed may go on from there
LAST = 999_999_999  # of any number: the grammar has nine digits
_VERSION = re.compile(r"v(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\Z")


class Bump(StrEnum):
    """How much a consumer notices: major must change, minor may gain, patch need not look."""

    MAJOR = "major"
    MINOR = "minor"
    PATCH = "patch"

    @property
    def weight(self) -> int:
        return {"patch": 0, "minor": 1, "major": 2}[self.value]


@dataclass(frozen=True, order=True)
class Version:
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        match = _VERSION.match(text)
        if not match:
            raise UserError(f"not a version: {text!r}", "a version is written vMAJOR.MINOR.PATCH, for example v1.2.0")
        return cls(*(int(part) for part in match.groups()))

    @property
    def leaves_room(self) -> bool:
        """Whether so many versions can follow that nobody will see the last."""
        return max(self.major, self.minor, self.patch) <= GIVEN_MAX

    def bump(self, by: Bump) -> Version:
        """The next version. After the last number of a place the place above rises; UserError after the last of all."""
        if by is Bump.PATCH and self.patch < LAST:
            return Version(self.major, self.minor, self.patch + 1)
        if by is not Bump.MAJOR and self.minor < LAST:
            return Version(self.major, self.minor + 1, 0)
        if self.major < LAST:
            return Version(self.major + 1, 0, 0)
        raise UserError(f"no version can follow {self}", "give it a number with room above: workbench doctor --mend")

    def __str__(self) -> str:
        return f"v{self.major}.{self.minor}.{self.patch}"


FIRST = Version(1, 0, 0)
