"""rustc's verdict on source that nobody has vouched for, in the sandbox. A source is asked about once.

``--cap-lints allow`` is never given: it turns off the guard against endless constant evaluation. The limit that bites
is processor time, not the clock, so that a busy machine gives the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from workbench.domain.errors import WorldError
from workbench.ports.sandbox import Job, Limits, Outcome, Sandbox

ROUND = 64  # sources in one round: fixed, so that what is asked does not depend on the number of workers
_LIMITS = Limits(wall_s=60.0, cpu_s=8, memory_bytes=2 << 30, output_bytes=4 << 10, processes=32)
_ARGV = (
    *("rustc", "--edition", "2021", "--crate-name", "snippet", "--crate-type", "lib", "--emit=metadata"),
    *("--error-format", "short", "-A", "warnings", "-o", "/tmp/snippet.rmeta", "/in/snippet.rs"),
)


@dataclass
class Compiler:
    """Remembers verdicts within one step. ``asked`` counts what really ran."""

    sandbox: Sandbox
    workers: int
    verdicts: dict[str, bool] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        return len(self.verdicts)

    def refusal(self) -> str:
        """Why nothing can be compiled here, with what mends it; empty when it can."""
        missing = self.sandbox.probe()
        if missing:
            return missing
        try:
            works = self.check(["pub fn works() -> bool { true }\n"])
        except WorldError as error:
            return f"{error.what}: {error.hint}" if error.hint else error.what
        return "" if works == [True] else "rustc does not compile an empty function: check it with rustc --version"

    def check(self, sources: Sequence[str]) -> list[bool]:
        """Whether each compiles, in order."""
        new = sorted(set(sources) - self.verdicts.keys())
        jobs = [Job(argv=_ARGV, files={"snippet.rs": text.encode()}, limits=_LIMITS, toolchain="rust") for text in new]
        for text, result in zip(new, self.sandbox.map(jobs, self.workers), strict=True):
            self.verdicts[text] = result.outcome is Outcome.EXITED and result.exit_code == 0
        return [self.verdicts[text] for text in sources]

    def first_that_compile(
        self, sources: Iterable[str], wanted: int, told: Callable[[int, int], None]
    ) -> Iterator[tuple[str, bool]]:
        """Each source with its verdict, in order and in whole rounds, until ``wanted`` compile or none is left."""
        rest = iter(sources)
        found = asked = 0
        while found < wanted and (part := list(islice(rest, ROUND))):
            verdicts = self.check(part)
            found += sum(verdicts)
            asked += len(part)
            told(asked, found)
            yield from zip(part, verdicts, strict=True)
