"""What rustc, in the sandbox, says of one file alone. Not here: what is done about it (see ``stage`` and ``params``).

A file of a crate can hardly compile alone: its modules, its crate's other files, features and dependencies are not
there. So the question is not "does it compile" but "does rustc find a fault that no other file could mend":

- ``ok``: it compiles, or all that is wrong is a lint that the file itself denies;
- ``unresolved``: something from outside is missing (a crate, a module, a macro, an item of the crate root or of a
  parent, a feature, a file to include, a nightly compiler). Whatever else rustc says may follow from that, so nothing
  is held against the file;
- ``error``: all that it needs is there, and it is wrong: syntax, types, borrows, a name that nothing brings into scope;
- ``timeout``: rustc did not come to an end within its processor time.

Lints keep their caps: without them a constant can be made to compute for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.corpus.cargo import read_manifest
from workbench.domain.errors import ToolMissing, WorldError
from workbench.domain.reading import BadInput, parse_json
from workbench.ports.sandbox import Job, Limits, Outcome, Sandbox, SandboxResult

BATCH = 64
EDITIONS = ("2015", "2018", "2021", "2024")
# The limit that bites is processor time, not the clock, so that a busy machine gives the same verdicts.
LIMITS = Limits(wall_s=120.0, cpu_s=10, memory_bytes=2 << 30, output_bytes=1 << 20, processes=32)
ENDED_BY_LIMIT = (128 + 24, 128 + 9)  # SIGXCPU, and SIGKILL after it
ENDLESS = "long_running_const_eval"
WORKS = b"pub fn works() -> bool { true }\n"

# Import, crate, module in a file of its own; nightly features.
_OUTSIDE_CODES = frozenset(["E0432", "E0463", "E0583", "E0554", "E0658"])
_OUTSIDE = re.compile(
    r"too many leading `super` keywords|in the crate root|in `crate`"
    r"|cannot find (?:macro|attribute|derive macro|module or crate)|undeclared crate or module|unlinked crate"
    r"|couldn't read |environment variable `[^`]*` not defined|with crates of the `proc-macro` crate type"
    r"|found an item that was configured out|item is gated"
)
_RUSTC_CODE = re.compile(r"E\d{4}\Z")


@dataclass(frozen=True)
class Question:
    path: Path
    edition: str


@dataclass(frozen=True)
class Diagnostic:
    """An error as rustc's JSON has it: ``code`` is E and four digits, a lint's name, or empty (syntax, macros)."""

    code: str
    message: str
    outside: bool


def check(sandbox: Sandbox, questions: Sequence[Question], *, workers: int) -> Iterator[tuple[str, str]]:
    """For each file ``(status, detail)``, in order. ToolMissing where there is no sandbox or rustc, WorldError where
    rustc does not even compile an empty function."""
    if missing := sandbox.probe():
        raise ToolMissing(f"the compile check needs the sandbox: {missing}", 'or run with `compile = "off"`')
    status, detail = verdict(sandbox.run(_job(WORKS, EDITIONS[-2])))
    if status != "ok":
        raise WorldError(f"rustc does not compile an empty function: {detail}", "check it with: rustc --version")
    for start in range(0, len(questions), BATCH):
        jobs = [_job(asked.path.read_bytes(), asked.edition) for asked in questions[start : start + BATCH]]
        yield from map(verdict, sandbox.map(jobs, workers))


def verdict(result: SandboxResult) -> tuple[str, str]:
    """What one run of rustc means."""
    if result.outcome is Outcome.TIMEOUT or (result.outcome is Outcome.KILLED and result.exit_code in ENDED_BY_LIMIT):
        return "timeout", f"rustc did not end within {LIMITS.cpu_s} s of processor time"
    if result.outcome is not Outcome.EXITED:
        return "error", f"rustc was ended: {result.outcome}"
    if result.exit_code == 0:
        return "ok", ""
    errors = list(_errors(result.stderr))
    if not errors:
        return "error", f"rustc failed with exit code {result.exit_code}"
    if outside := [error for error in errors if error.outside]:
        return "unresolved", _shown(outside[0])
    if any(error.code == ENDLESS for error in errors):
        return "timeout", "a constant that computes for ever"
    faults = [error for error in errors if not error.code or _RUSTC_CODE.match(error.code)]
    return ("error", _shown(faults[0])) if faults else ("ok", "")


class Editions:
    """By folder of a package, the edition that the nearest manifest gives; ``default`` where there is none."""

    def __init__(self, package: Path, default: str) -> None:
        self._package = package
        self._default = default
        self._known: dict[str, str] = {}

    def of(self, folder: str) -> str:
        if folder not in self._known:
            self._known[folder] = self._find(folder)
        return self._known[folder]

    def _find(self, folder: str) -> str:
        inherits = False
        for above in _upwards(folder):
            manifest = read_manifest(self._package / above / "Cargo.toml") or {}
            own, shared = _table(manifest, "package"), _table(_table(manifest, "workspace"), "package")
            edition = own.get("edition", "2015") if own and not inherits else ""
            inherits = inherits or isinstance(edition, dict)
            edition = shared.get("edition", "") if inherits else edition
            if edition in EDITIONS:
                return str(edition)
        return self._default


def _upwards(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def _table(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _job(text: bytes, edition: str) -> Job:
    argv = (
        *("rustc", f"--edition={edition}", "--crate-name=checked", "--crate-type=lib", "--emit=metadata"),
        *("--error-format=json", "-Awarnings", "-o", "/tmp/checked.rmeta", "/in/checked.rs"),
    )
    return Job(argv=argv, files={"checked.rs": text}, limits=LIMITS, toolchain="rust")


def _errors(stderr: bytes) -> Iterator[Diagnostic]:
    """The errors among rustc's JSON lines; a last line that was cut off is left out."""
    for line in stderr.splitlines():
        try:
            raw = parse_json(line)
        except BadInput:
            continue
        if isinstance(raw, dict) and raw.get("level") == "error" and not _is_summary(raw):
            code = str((raw.get("code") or {}).get("code", ""))
            told = [raw["message"], *(child["message"] for child in raw.get("children", ()))]
            outside = code in _OUTSIDE_CODES or any(map(_OUTSIDE.search, told)) or _is_asked_for(raw)
            yield Diagnostic(code, str(raw["message"]), outside)


def _is_summary(raw: Mapping[str, Any]) -> bool:
    return not raw.get("spans") and str(raw["message"]).startswith("aborting due to")


def _is_asked_for(raw: Mapping[str, Any]) -> bool:
    """By ``compile_error!``: the crate's own way to say that a feature must be chosen."""
    return any(
        line["text"].lstrip().startswith("compile_error!") for span in raw.get("spans", ()) for line in span["text"]
    )


def _shown(error: Diagnostic) -> str:
    text = f"{error.code}: {error.message}" if error.code else error.message
    return "".join(char if char.isprintable() else " " for char in text)[:200]
