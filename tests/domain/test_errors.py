"""What an error says."""

from __future__ import annotations

from workbench.domain.errors import LOG_LINES, NO_ANSWER, OUT_OF_MEMORY, NativeCrash, WorldError, signal_name


def test_a_native_crash_says_what_crashed_how_and_on_what() -> None:
    crash = NativeCrash(
        "llama.cpp in package", signal_name(11), given="model-Q8_0.gguf", log=["loading", "amx\x1b[31m"]
    )
    assert isinstance(crash, WorldError)
    assert crash.exit_code == 10
    first, *log, hint = str(crash).split("\n  ")
    assert first == crash.what == "llama.cpp in package crashed (SIGSEGV) on model-Q8_0.gguf"
    assert log == ["| loading", "| amx [31m"], "what a crashed process wrote reaches no terminal as it is"
    assert "workbench doctor" in hint


def test_out_of_memory_and_no_answer_are_not_called_crashes() -> None:
    assert NativeCrash("torch in train", OUT_OF_MEMORY).what == "torch in train ran out of memory"
    assert NativeCrash("torch in train", NO_ANSWER).what == "torch in train gave no answer in time"
    assert len({NativeCrash("torch", ended).hint for ended in (OUT_OF_MEMORY, NO_ANSWER, "SIGSEGV")}) == 3


def test_only_the_end_of_a_log_is_told() -> None:
    crash = NativeCrash("torch", "SIGBUS", log=[f"line {number}" for number in range(99)])
    assert len(crash.log) == LOG_LINES
    assert crash.log[-1] == "line 98"


def test_a_signal_without_a_name_has_a_number() -> None:
    assert signal_name(40) == "signal 40"
