"""How the end of a process is read: real ends of real processes."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from workbench.domain.crash import read_crash
from workbench.domain.errors import NO_ANSWER, OUT_OF_MEMORY

NULL = "import ctypes; ctypes.string_at(0)"


def end_of(code: str, **options: object) -> tuple[int, list[str]]:
    """The exit code of a Python child, and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout.splitlines()


def test_a_process_that_ends_in_order_has_not_crashed() -> None:
    for code in ("pass", "raise SystemExit(3)", "raise ValueError", "print('out of memory'); raise ValueError"):
        assert read_crash(*end_of(code), step="train") is None


def test_a_fault_names_where_native_code_was_called_and_what_was_said_before() -> None:
    crash = read_crash(*end_of("print('reading a.bin', flush=True)\n" + NULL), step="train", given="shards/a/v1.0.0")
    assert crash is not None
    assert re.fullmatch(r"native code at ctypes/__init__.py:\d+ in train", crash.crashed)
    assert crash.what == f"{crash.crashed} crashed (SIGSEGV) on shards/a/v1.0.0"
    assert crash.log[0] == "reading a.bin"
    assert crash.log[1] == "Fatal Python error: Segmentation fault"
    assert "string_at" in crash.log[2]


def test_the_library_that_was_called_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    package = tmp_path / "site-packages" / "grammars"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"def parse():\n    {NULL}\n")
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); import grammars; grammars.parse()"
    crash = read_crash(*end_of(code), step="filter")
    assert crash is not None
    assert crash.crashed == "grammars in filter"


def test_of_many_threads_the_one_that_crashed_is_told() -> None:
    code = """
    import ctypes, threading
    threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(30)]
    for thread in threads: thread.start()
    def crashing(): ctypes.string_at(0)
    crashing()
    """
    crash = read_crash(*end_of(code), step="train")
    assert crash is not None
    assert "crashing" in " ".join(crash.log)
    assert "wait" not in " ".join(crash.log)


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT])
def test_each_fault_is_a_crash_also_when_a_shell_tells_of_it(number: signal.Signals) -> None:
    code = f"import os; os.kill(os.getpid(), {number.value})"
    exit_code, log = end_of(code)
    for told in (exit_code, 128 - exit_code):
        crash = read_crash(told, log, step="train")
        assert crash is not None
        assert crash.ended == number.name
        assert "crashed" in crash.what


def test_a_library_in_rust_that_gives_up_has_crashed() -> None:
    crash = read_crash(*end_of("from ast_grep_py import SgRoot; SgRoot('x', 'cobol')"), step="filter")
    assert crash is not None
    assert crash.what == "filter crashed (panic)"
    assert "LanguageNotSupported" in crash.log[-1]


def test_a_stack_of_one_thread_alone_is_read_as_well() -> None:
    code = "import ctypes, faulthandler; faulthandler.enable(all_threads=False); ctypes.string_at(0)"
    crash = read_crash(*end_of(code), step="complete", library="llama.cpp", hint="look there")
    assert crash is not None
    assert (crash.crashed, crash.hint) == ("llama.cpp in complete", "look there")
    assert "string_at" in crash.log[-2]


def test_what_somebody_ended_has_not_crashed_by_itself() -> None:
    crash = read_crash(*end_of("import os; os.kill(os.getpid(), 15)"), step="train")
    assert crash is not None
    assert crash.what == "train was ended (SIGTERM)"
    killed = read_crash(-9, [], step="train", hint="after a fault alone")
    assert killed is not None
    assert "dmesg" in killed.hint


@pytest.mark.parametrize(
    "code",
    [
        "x = bytearray(1 << 33)",
        "import os; os.write(2, b\"terminate called after throwing an instance of 'std::bad_alloc'\\n\")\n"
        "def f(depth): f(depth - 1) if depth else os.abort()\nf(60)",
    ],
)
def test_a_limit_of_memory_is_told_from_a_crash(code: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    crash = read_crash(*end_of(code, preexec_fn=limit), step="train")
    assert crash is not None
    assert crash.ended == OUT_OF_MEMORY
    assert "memory" in crash.hint


def test_an_end_by_the_kernel_for_memory_is_no_mystery() -> None:
    crash = read_crash(-9, ["step 3"], step="train", memory_ran_out=True)
    assert crash is not None
    assert (crash.what, crash.log) == ("train ran out of memory", ("step 3",))


def test_a_limit_of_processor_time_is_no_answer() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1 << 10))

    crash = read_crash(*end_of("while True: pass", preexec_fn=limit), step="evaluate")
    assert crash is not None
    assert crash.ended == NO_ANSWER
