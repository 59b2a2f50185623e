"""Which licence holds for a file, by SPDX, and whether it is allowed. What is unknown is rejected.

The declaration that is nearest counts: the file's own header, the crate's manifest (or its workspace's), the package's
metadata. The nearest manifest of a crate is the last that is asked: one above speaks for another crate. Where it names
a ``license-file`` instead, the licence is what that text is; where it says nothing, only an sdist's metadata speaks for
the crate. The licence texts nearest above the file must not contradict the declaration; where nothing is declared, they
decide. Of several texts in a folder one that agrees is enough, unless another is of a licence that is neither declared
nor allowed.

A text that cannot be identified contradicts too, unless a text beside it agrees with the declaration (it may say no
more than "under either of these"), or it begins with one that does (and goes on with those of others). Where nothing is
declared it leaves the licence unknown. A notice that cannot be identified is no licence text, and hides none above it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from workbench.corpus.cargo import read_manifest
from workbench.corpus.rows import PackageRow
from workbench.domain.errors import UserError
from workbench.stages.filter.rules import Drop

TEXT_SCORE = 0.9  # Sørensen-Dice similarity from which a text is taken for a licence; below it is not known
TEXT_BYTES = 200_000
NOTICES = ("notice", "copyright")  # how the names of files begin that need not be licence texts
_END = re.compile(
    r"^[^\w\n]*end of terms and conditions[^\w\n]*$|^[ \t]*([-=*_#~])\1{2,}[ \t]*$", re.IGNORECASE | re.MULTILINE
)
KEYS = frozenset({"license", "license-file"})  # of a manifest


@dataclass(frozen=True)
class Ruling:
    """What holds in one folder of a package."""

    license: str  # normalised SPDX expression; empty when unknown
    rank: int  # of the best alternative, for choosing among copies
    evidence: str
    drop: Drop | None


def check_allowed(allowed: Sequence[str]) -> None:
    """UserError for what can be no file's licence, and so would allow nothing in silence."""
    for license in allowed:
        parsed = _parsed(license)
        if parsed is None:
            raise UserError(f"parameter licenses holds {license!r}, which is no SPDX licence", "see the SPDX list")
        if type(parsed).__name__ in ("OR", "AND"):
            raise UserError(f"parameter licenses holds {license!r}", "list each by itself: OR and AND are understood")
        if str(parsed) != license:
            raise UserError(f"parameter licenses holds {license!r}", f"write {str(parsed)!r}")


class Policy:
    """The allowed licences, in order of preference."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._rank = {license: rank for rank, license in enumerate(allowed)}

    def judge(self, expression: str) -> tuple[str, int | None]:
        """The normalised expression and its rank; ("", None) where it is not SPDX, rank None where it is not allowed.

        Of alternatives (OR) the best counts, of conditions (AND) all must be allowed and the worst counts.
        """
        parsed = _parsed(expression)
        return ("", None) if parsed is None else (str(parsed), self._rank_of(parsed))

    def _rank_of(self, parsed: Any) -> int | None:
        parts = getattr(parsed, "args", ())
        if not parts or hasattr(parsed, "license_symbol"):  # a licence, perhaps WITH an exception
            return self._rank.get(str(parsed))
        ranks = [self._rank_of(part) for part in parts]
        if type(parsed).__name__ == "OR":
            return min((rank for rank in ranks if rank is not None), default=None)
        return None if None in ranks else max(rank for rank in ranks if rank is not None)


@cache
def _parsed(expression: str) -> Any:
    import license_expression

    spelled = expression.strip().replace("/", " OR ")
    if not spelled or len(spelled) > 200:
        return None
    try:
        return _licensing().parse(spelled, validate=True)
    except (license_expression.ExpressionError, license_expression.ParseError, RecursionError):
        return None


@cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def licenses_in(expression: str) -> frozenset[str]:
    """The licences that an expression names, without exceptions."""
    parsed = _parsed(expression)
    return frozenset(str(key) for key in _licensing().license_keys(parsed)) if parsed is not None else frozenset()


def _stem(license: str) -> str:
    """The licence whose text it is: GPL-2.0-only and GPL-2.0-or-later have one text."""
    return license.removesuffix("-only").removesuffix("-or-later").removesuffix("+")


def identify(path: Path) -> str:
    """The SPDX id of a licence text; empty where it is none, or several in one file."""
    return _identified(path.read_text("utf-8", "replace")) if path.stat().st_size <= TEXT_BYTES else ""


def identify_opening(path: Path) -> str:
    """The SPDX id of the text with which a file of several begins; empty where no line shows its end, or it is none."""
    if not path.is_file() or path.stat().st_size > TEXT_BYTES:
        return ""
    text = path.read_text("utf-8", "replace")
    end = _END.search(text)
    return _identified(text[: end.start()]) if end else ""


def _identified(text: str) -> str:
    import askalono

    found = askalono.identify(text)
    if found is None or found.score < TEXT_SCORE:
        return ""
    # Pixar's licence is Apache's with another section 6 and no appendix, so Apache's without its appendix, as many
    # crates have it, is nearer to Pixar's than to its own. Of the two only Pixar's speaks of affiliates.
    return "Apache-2.0" if found.name == "Pixar" and "affiliates" not in text else str(found.name)


@dataclass(frozen=True)
class Texts:
    """Those of one folder."""

    known: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)  # of the known, without those of notices: they may be others'
    unknown: list[str] = field(default_factory=list)  # paths; a notice need not be a licence text

    def add(self, path: str, license: str) -> None:
        notice = posixpath.basename(path).lower().startswith(NOTICES)
        if license:
            self.known.add(license)
        if license and not notice:
            self.granted.add(license)
        if not license and not notice:
            self.unknown.append(path)


class PackageLicenses:
    """The licences of one package; ``texts`` are its licence files and what ``identify`` said of them."""

    def __init__(
        self, folder: Path, row: PackageRow, texts: Mapping[str, str], policy: Policy, text_rule: str = "agree"
    ) -> None:
        self._folder = folder
        self._row = row
        self._policy = policy
        self._text_rule = text_rule
        self._license_of = texts
        self._texts: dict[str, Texts] = {}
        for path, license in sorted(texts.items()):
            self._texts.setdefault(posixpath.dirname(path), Texts()).add(path, license)
        self._rulings: dict[str, Ruling] = {}

    def ruling(self, folder: str) -> Ruling:
        """For files that lie in ``folder`` of the package."""
        if folder not in self._rulings:
            self._rulings[folder] = self._rule(folder)
        return self._rulings[folder]

    def _rule(self, folder: str) -> Ruling:
        declared, evidence = self._declared(folder)
        texts_at, texts = self._nearest_texts(folder)
        if declared is None:
            return Ruling("", 0, evidence, Drop("license", "unknown"))
        if not declared:
            if texts.unknown or not texts.known:
                return Ruling("", 0, "nothing declared", Drop("license", "unknown"))
            declared, evidence = " AND ".join(sorted(texts.known)), f"texts in {texts_at or 'the package'}"
        license, rank = self._policy.judge(declared)
        if not license:
            return Ruling("", 0, evidence, Drop("license", f"not an SPDX expression: {declared}"[:200]))
        if rank is None:
            return Ruling(license, 0, evidence, Drop("license", f"not allowed: {license}"))
        return self._with_texts(license, rank, evidence, texts)

    def _with_texts(self, license: str, rank: int, evidence: str, texts: Texts) -> Ruling:
        def dropped(why: str) -> Ruling:
            return Ruling(license, rank, evidence, Drop("license", why))

        named = {_stem(each) for each in licenses_in(license)}
        agreeing = sorted(text for text in texts.known if _stem(text) in named)
        if agreeing:
            evidence = f"{evidence}; text of {', '.join(agreeing)}"
        if self._text_rule == "ignore":
            return Ruling(license, rank, evidence, None)
        other = sorted(texts.known - set(agreeing))
        against = [text for text in other if not agreeing or self._policy.judge(text)[1] is None]
        if against:
            return dropped(f"declared {license}, but the text is {', '.join(against)}")
        if self._text_rule == "require" and not agreeing:
            return dropped(f"no text of {license}")
        if texts.unknown and not texts.granted & set(agreeing):
            opening = [path for path in texts.unknown if _stem(self._opening(path)) in named]
            if not opening:
                return dropped(f"declared {license}, but {texts.unknown[0]} is no known text"[:200])
            evidence = f"{evidence}; {opening[0]} begins with {self._opening(opening[0])}"
        return Ruling(license, rank, evidence, None)

    def _opening(self, path: str) -> str:
        if path not in self._openings:
            self._openings[path] = identify_opening(self._folder / path)
        return self._openings[path]

    @cached_property
    def _openings(self) -> dict[str, str]:
        return {}

    def _declared(self, folder: str) -> tuple[str | None, str]:
        """What holds and where it stands; empty where nothing does, None where it is a text that is not known."""
        for above in _upwards(folder):
            manifest = self._manifest(above)
            crate = manifest.get("package", manifest.get("project"))  # [project]: as Cargo first had it
            if crate is None:
                continue
            if _table(crate).keys() & KEYS:
                return self._stated(above, _table(crate))
            # A crate that says nothing: only an sdist's metadata speaks for all that lies in it.
            if above and self._row.kind != "sdist":
                return "", f"{above}/Cargo.toml"
            break
        return self._row.license, "package metadata"

    def _stated(self, at: str, crate: Mapping[str, Any]) -> tuple[str | None, str]:
        """What the manifest in ``at`` says for its ``crate``, which may inherit it from the nearest workspace."""
        inherited = [key for key in KEYS if _table(crate.get(key)).get("workspace") is True]
        if inherited:
            at = next((above for above in _upwards(at) if "workspace" in self._manifest(above)), at)
            shared = _table(_table(self._manifest(at).get("workspace")).get("package"))
            crate = {**crate, **{key: shared.get(key) for key in inherited}}
        license, text = crate.get("license"), crate.get("license-file")
        where = posixpath.join(at, "Cargo.toml")
        if isinstance(license, str) and license:
            return license, where
        if isinstance(text, str):
            path = posixpath.normpath(posixpath.join(at, text))
            return self._license_of.get(path) or None, f"{path}, named by {where}"
        return "", where

    def _manifest(self, folder: str) -> Mapping[str, Any]:
        if folder not in self._manifests:
            self._manifests[folder] = _manifest_of(self._folder / folder)
        return self._manifests[folder]

    @cached_property
    def _manifests(self) -> dict[str, Mapping[str, Any]]:
        return {}

    def _nearest_texts(self, folder: str) -> tuple[str, Texts]:
        for above in _upwards(folder):
            texts = self._texts.get(above)
            if texts and (texts.known or texts.unknown):
                return above, texts
        return "", Texts()


def _upwards(folder: str) -> Iterable[str]:
    while folder:
        yield folder
        folder = posixpath.dirname(folder)
    yield ""


def _manifest_of(folder: Path) -> Mapping[str, Any]:
    """One that cannot be read is a crate's all the same, and no other speaks for it."""
    found = read_manifest(folder / "Cargo.toml")
    return {"package": {"license": None}} if found is None else found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
