"""What the sandbox costs: `true`, an interpreter and rustc, bare beside jailed; and how fast a tree is ended."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from workbench.ports.sandbox import Job, Limits
from workbench.sandbox import toolchain
from workbench.sandbox.bubblewrap import Bubblewrap

ROUNDS = 60
RUST = b"pub fn double(x: i64) -> i64 { x * 2 }\n"


def milliseconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1e3


def compare(name: str, bare: list[str], job: Job, sandbox: Bubblewrap) -> None:
    """Both in turns, so that a noisy machine is noisy for both."""
    outside, inside = [], []
    for _ in range(ROUNDS):
        outside.append(milliseconds(lambda: subprocess.run(bare, stdin=subprocess.DEVNULL, check=True)))
        inside.append(milliseconds(lambda: sandbox.run(job)))
    low, high = statistics.median(outside), statistics.median(inside)
    worst = sorted(inside)[int(ROUNDS * 0.95)]
    print(f"{name:<28}{low:>9.1f}{high:>9.1f}{high - low:>+9.1f}{worst:>9.1f}")


def main() -> None:
    sandbox = Bubblewrap()
    missing = sandbox.probe()
    if missing:
        raise SystemExit(missing)
    print(f"{'ms, median of ' + str(ROUNDS):<28}{'bare':>9}{'jailed':>9}{'costs':>9}{'p95':>9}")
    compare("true", ["true"], Job(argv=["true"]), sandbox)
    compare("python3 -IS", ["/usr/bin/python3", "-IS", "-c", ""], Job(argv=["python3", "-IS", "-c", ""]), sandbox)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "a.rs")
        source.write_bytes(RUST)
        flags = ["--edition", "2021", "--crate-type", "lib", "--emit=metadata"]
        real = str(toolchain.rust() / "bin" / "rustc")  # not rustup's shim, which costs as much again
        job = Job(argv=["rustc", *flags, "-o", "/tmp/a", "/in/a.rs"], files={"a.rs": RUST}, toolchain="rust")
        compare("rustc --emit=metadata", [real, *flags, "-o", f"{folder}/a", str(source)], job, sandbox)
    bomb = Job(argv=["sh", "-c", "b() { b | b & }; b; sleep 60"], limits=Limits(wall_s=0.3))
    late = sorted((sandbox.run(bomb).wall_s - 0.3) * 1e3 for _ in range(20))
    print(f"a fork bomb is gone after its limit: median {late[10]:.0f} ms, worst {late[-1]:.0f} ms (promised: 500)")


if __name__ == "__main__":
    main()
