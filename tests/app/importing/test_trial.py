"""A model of strangers is opened in the sandbox before it is taken: what is no model there is refused, and a crash of
llama.cpp on it is told as one."""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workbench.app import wiring
from workbench.app.agents import open_release
from workbench.app.importing import trial
from workbench.app.importing.file import import_file
from workbench.app.importing.trial import in_sandbox, limits_for
from workbench.domain.errors import NativeCrash, Refused, ToolMissing, WorldError
from workbench.domain.generation import Prompt, Sampling
from workbench.domain.gguf import parse_header
from workbench.ports.sandbox import Job, Outcome, SandboxResult


@pytest.fixture
def confined() -> None:
    missing = wiring.sandbox().probe()
    if missing:
        pytest.skip(missing)


def with_value(path: Path, target: Path, key: str, code: str, value: float) -> Path:
    """A copy whose header says something else: within bounds, and not what is inside."""
    data = bytearray(path.read_bytes())
    name = struct.pack("<Q", len(key)) + key.encode()
    at = data.index(name) + len(name) + 4
    data[at : at + struct.calcsize(code)] = struct.pack(code, value)
    target.write_bytes(data)
    with target.open("rb") as file:
        assert parse_header(file, len(data)).metadata[key] != parse_header(path.open("rb"), len(data)).metadata[key]
    return target


@pytest.mark.usefixtures("confined")
def test_a_model_that_works_is_taken_and_answers(hub: Any, tiny: Any) -> None:
    artifact = import_file(hub, tiny.q8, name="theirs", license="MIT", who="Ann <ann@localhost>")
    assert artifact.tag.short == "release/theirs/v1.0.0"
    model = open_release(hub, artifact)
    assert len(model.generate(Prompt("fn"), Sampling(temperature=0.0, max_tokens=2)).tokens) <= 2
    model.close()


INVALID = {
    "no heads": ("llama.attention.head_count", "<I", 0, r"llama\.cpp cannot load"),
    "another width": ("llama.feed_forward_length", "<I", 512, "check_tensor_dims"),
    "no room": ("llama.context_length", "<I", 0, ""),
}


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize("name", INVALID)
def test_a_sane_header_over_what_is_no_such_model_is_refused_and_nothing_is_stored(
    hub: Any, tiny: Any, tmp_path: Path, name: str
) -> None:
    key, code, value, said = INVALID[name]
    path = with_value(tiny.q8, tmp_path / "bad.gguf", key, code, value)
    with pytest.raises(Refused, match=rf"bad\.gguf is refused: it cannot be opened: .*({said})") as caught:
        import_file(hub, path, name="theirs", license="MIT", who="Ann <ann@localhost>")
    assert caught.value.hint
    assert hub.artifacts.list() == []
    assert path.exists()


@pytest.mark.usefixtures("confined")
def test_a_crash_of_llama_cpp_is_told_as_one_and_nothing_is_stored(hub: Any, tiny: Any, tmp_path: Path) -> None:
    path = with_value(tiny.q8, tmp_path / "bad.gguf", "llama.block_count", "<I", 1_000_000)
    with pytest.raises(NativeCrash) as caught:
        import_file(hub, path, name="theirs", license="MIT", who="Ann <ann@localhost>")
    assert caught.value.what.startswith("llama.cpp in import crashed (SIG")
    assert caught.value.what.endswith(" on bad.gguf")
    assert any("in _load" in line or "native.py" in line for line in caught.value.log), "Python's stack is told"
    assert "not imported" in caught.value.hint
    assert hub.artifacts.list() == []


@pytest.mark.usefixtures("confined")
def test_weights_that_are_garbage_of_the_right_size_are_not_taken(tiny: Any, tmp_path: Path) -> None:
    data = tiny.q8.read_bytes()
    start = parse_header(tiny.q8.open("rb"), len(data)).data_offset
    path = tmp_path / "garbage.gguf"
    path.write_bytes(data[:start] + b"\xff" * (len(data) - start))  # every scale is not a number
    with pytest.raises((Refused, NativeCrash), match=r"not a number|crashed \(SIG"):
        in_sandbox(path)


@pytest.mark.usefixtures("confined")
def test_the_file_that_was_tried_keeps_its_mode_and_a_private_one_can_be_tried(tiny: Any, tmp_path: Path) -> None:
    path = tmp_path / "private.gguf"
    path.write_bytes(tiny.q8.read_bytes())
    path.chmod(0o400)
    in_sandbox(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert path.stat().st_nlink == 1


class Jail:
    """A sandbox that ends every job as it is told."""

    def __init__(self, ending: SandboxResult | None = None, missing: str = "") -> None:
        self._ending, self._missing = ending, missing

    def probe(self) -> str:
        return self._missing

    def run(self, job: Job) -> SandboxResult:
        assert self._ending is not None
        return self._ending

    def map(self, jobs: Sequence[Job], workers: int = 1) -> Sequence[SandboxResult]:
        return [self.run(job) for job in jobs]


ENDINGS = {
    "timeout": (Outcome.TIMEOUT, -1, "llama.cpp in import gave no answer in time on tiny-Q8_0.gguf"),
    "processor time": (Outcome.KILLED, 152, "llama.cpp in import gave no answer in time on tiny-Q8_0.gguf"),
    "memory": (Outcome.MEMORY, -1, "llama.cpp in import ran out of memory on tiny-Q8_0.gguf"),
    "killed": (Outcome.KILLED, 139, "llama.cpp in import crashed (SIGSEGV) on tiny-Q8_0.gguf"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_that_is_no_verdict_is_told_in_words(tiny: Any, tmp_path: Path, name: str) -> None:
    outcome, code, said = ENDINGS[name]
    jail = Jail(SandboxResult(outcome, code, b"ready\n", b"one\n\x1b[31mtwo", False, 61.0))
    with pytest.raises(NativeCrash) as caught:
        in_sandbox(link(tiny.q8, tmp_path), jail)
    assert caught.value.what == said
    assert caught.value.log == ("ready", "one", "[31mtwo")


def link(model: Path, folder: Path) -> Path:
    path = folder / "tiny-Q8_0.gguf"
    path.symlink_to(model)
    return path


def test_a_bug_of_the_trial_is_not_the_file_s_fault(tiny: Any) -> None:
    jail = Jail(SandboxResult(Outcome.EXITED, 1, b"ready\n", b"KeyError: 'x'", False, 1.0))
    with pytest.raises(WorldError, match="could not be tried: KeyError"):
        in_sandbox(tiny.q8, jail)


def test_a_sandbox_in_which_llama_cpp_does_not_start_is_not_the_file_s_fault(tiny: Any) -> None:
    jail = Jail(SandboxResult(Outcome.EXITED, 1, b"", b"ModuleNotFoundError: No module named 'numpy'", False, 1.0))
    with pytest.raises(WorldError, match=r"cannot be started in the sandbox: ModuleNotFoundError.*numpy") as caught:
        in_sandbox(tiny.q8, jail)
    assert not isinstance(caught.value, Refused)


def test_the_word_that_the_trial_says_first_is_the_one_that_is_waited_for() -> None:
    from workbench.inference.trial import READY

    assert f"{READY}\n".encode() == trial.READY


def test_without_a_sandbox_nothing_is_opened_and_the_command_that_installs_it_is_named(hub: Any, tiny: Any) -> None:
    bare = Jail(missing="bubblewrap is not installed; run: apt-get install it")
    with pytest.raises(ToolMissing, match="apt-get install it"):
        import_file(hub, tiny.q8, name="theirs", license="MIT", who="A", trial=lambda model: in_sandbox(model, bare))
    assert hub.artifacts.list() == []


def test_a_larger_model_may_take_longer_and_more_memory() -> None:
    small, large = limits_for(1 << 20), limits_for(8 << 30)
    assert small.memory_bytes < large.memory_bytes
    assert large.memory_bytes >= trial.BASE_BYTES + (16 << 30)
    assert 60 <= small.wall_s < large.wall_s < 600


@pytest.mark.usefixtures("confined")
def test_a_variant_that_is_forced_is_the_one_that_tries_and_a_wrong_one_is_not_the_files_fault(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_LLAMA_VARIANT", "z80")
    with pytest.raises(WorldError, match="cannot be started in the sandbox: WORKBENCH_LLAMA_VARIANT=z80"):
        in_sandbox(tiny.q8)
