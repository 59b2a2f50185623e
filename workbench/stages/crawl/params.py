"""What can be asked of the crawl."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from workbench.config.params import StageParams
from workbench.domain.tree_rules import TreeLimits, judge_name
from workbench.ports.fetch import Source

LICENSE_FILES = ("license*", "licence*", "copying*", "copyright*", "unlicense*", "notice*")  # in any case


def _in_any_case(glob: str) -> str:
    return "".join(f"[{char.upper()}{char}]" if char.isalpha() else char for char in glob)


WANTED = ("*.rs", "Cargo.toml", "PKG-INFO", *map(_in_any_case, LICENSE_FILES))


class SourceParams(StageParams):
    """One line of the source list."""

    kind: Literal["sdist", "git", "crate", "path"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    version: str = Field(default="", pattern=r"^[A-Za-z0-9._+!-]{0,100}$")
    location: str = ""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _pinned(self) -> SourceParams:
        if self.kind != "path" and not self.version:
            raise ValueError(f"{self.name}: a source of kind {self.kind} needs an exact version")
        if self.kind in ("git", "path") and not self.location:
            raise ValueError(f"{self.name}: a source of kind {self.kind} needs a location")
        if judged := judge_name(self.package.encode(), TreeLimits()):
            raise ValueError(
                f"{self.package} cannot name a folder ({judged[0].replace('-', ' ')}): choose another name"
            )
        return self

    def source(self) -> Source:
        return Source(self.kind, self.name, self.version, self.location, self.sha256)

    @property
    def package(self) -> str:
        return f"{self.name}-{self.version}" if self.version else self.name


class CrawlParams(StageParams):
    sources: tuple[SourceParams, ...] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _each_once(cls, sources: tuple[SourceParams, ...]) -> tuple[SourceParams, ...]:
        packages = [source.package.lower() for source in sources]
        if twice := sorted({package for package in packages if packages.count(package) > 1}):
            raise ValueError(f"{twice[0]} is listed twice")
        return sources
