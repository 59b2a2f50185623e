"""What a job gets, and what comes back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.domain.errors import UserError
from workbench.ports.sandbox import Job, Limits, Outcome
from workbench.sandbox.bubblewrap import _unpack
from workbench.sandbox.slots import FIRST_UID, slot


def sh(script: str, **more) -> Job:
    return Job(argv=["sh", "-c", script], **more)


def test_exit_code_output_and_errors_come_back(sandbox):
    result = sandbox.run(sh("echo out; echo err >&2; exit 3"))
    assert (result.outcome, result.exit_code) == (Outcome.EXITED, 3)
    assert (result.stdout, result.stderr, result.truncated) == (b"out\n", b"err\n", False)


def test_a_job_is_ended_when_whoever_started_it_says_so(sandbox):
    looks = iter([False, False, True])
    result = sandbox.run(sh("sleep 600", limits=Limits(wall_s=60), is_stopped=lambda: next(looks, True)))
    assert result.outcome is Outcome.STOPPED
    assert result.wall_s < 30, "long before its limit"


def test_standard_input_is_the_job_s_or_empty(sandbox):
    assert sandbox.run(Job(argv=["cat"], stdin=b"given")).stdout == b"given"
    assert sandbox.run(Job(argv=["cat"])).stdout == b""


def test_files_are_below_in_and_cannot_be_written(sandbox):
    job = sh("cat /in/a/b.txt; echo x > /in/a/b.txt; echo x > /in/new", files={"a/b.txt": b"hello"})
    result = sandbox.run(job)
    assert result.stdout == b"hello"
    assert result.exit_code != 0
    assert result.stderr.count(b"Read-only file system") + result.stderr.count(b"Permission denied") >= 2


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_is_readable_inside_wherever_it_lies(sandbox, tmp_path: Path, mode: int):
    folder = tmp_path / "private" / "data"
    folder.mkdir(parents=True)
    (folder / "deep").mkdir()
    (folder / "deep" / "file.txt").write_text("text")
    folder.parent.chmod(mode)
    result = sandbox.run(sh("cat /in/d/deep/file.txt; touch /in/d/x", folders={"d": folder}))
    assert result.stdout == b"text"
    assert result.exit_code != 0
    assert not (folder / "x").exists()


def test_collected_files_come_back_and_missing_ones_do_not(sandbox):
    script = "mkdir /out/d; printf 'a\\nb' > /out/d/x; : > /out/empty; ln -s /in/secret /out/link; exit 4"
    result = sandbox.run(sh(script, files={"secret": b"s"}, collect=["d/x", "none", "empty", "link"]))
    assert result.exit_code == 4
    assert result.collected == {"d/x": b"a\nb", "empty": b""}


def test_collected_bytes_are_capped_and_a_cut_stream_is_not_a_file(sandbox, monkeypatch):
    import workbench.sandbox.bubblewrap as module

    monkeypatch.setattr(module, "COLLECTED_BYTES", 100)
    result = sandbox.run(sh("printf 12345 > /out/a; head -c 500 /dev/zero > /out/b", collect=["a", "b"]))
    assert result.collected == {"a": b"12345"}


@given(st.binary(max_size=60) | st.from_regex(rb"([0-9-]{0,5}\n.{0,5}){0,4}", fullmatch=True))
def test_whatever_comes_through_the_channel_is_files_or_nothing(data: bytes):
    found = _unpack(["a", "b", "c"], data)
    assert all(content in data for content in found.values())
    assert _unpack(["a"], b"--5\nhello") == _unpack(["a"], b"9\nhello") == _unpack(["a"], b"-1\n") == {}
    assert _unpack(["a", "b"], b"-1\n5\nhello") == {"b": b"hello"}


def test_output_beyond_the_cap_is_dropped_and_said(sandbox):
    result = sandbox.run(sh("head -c 300000 /dev/zero; echo end >&2", limits=Limits(output_bytes=1000)))
    assert (len(result.stdout), result.truncated, result.stderr) == (1000, True, b"end\n")


def test_a_signal_of_its_own_making_is_told_from_an_exit(sandbox):
    assert sandbox.run(sh("kill -SEGV $$")).outcome is Outcome.KILLED
    assert sandbox.run(sh("exit 77")).outcome is Outcome.EXITED


def test_the_processor_limit_kills(sandbox):
    assert sandbox.run(sh("while :; do :; done", limits=Limits(cpu_s=1, wall_s=20))).outcome is Outcome.KILLED


def test_the_environment_is_small_and_fixed(sandbox, monkeypatch):
    monkeypatch.setenv("WORKBENCH_SECRET", "s3cret")
    names = {line.split(b"=")[0] for line in sandbox.run(Job(argv=["env"])).stdout.splitlines()}
    assert names == {b"PATH", b"HOME", b"LANG", b"TMPDIR", b"TZ", b"PWD"}


def test_results_of_a_map_are_in_the_order_of_the_jobs_for_any_number_of_workers(sandbox):
    jobs = [sh(f"sleep 0.0{5 - i % 5}; echo {i}") for i in range(10)]
    for workers in (1, 4):
        assert [int(result.stdout) for result in sandbox.map(jobs, workers=workers)] == list(range(10))


def test_rust_compiles_inside_and_cannot_include_a_file_of_the_host(sandbox):
    from workbench.domain.errors import ToolMissing
    from workbench.sandbox import toolchain

    try:
        toolchain.rust()
    except ToolMissing as error:
        pytest.skip(error.what)
    argv = ["rustc", "--edition", "2021", "--crate-type", "lib", "--emit=metadata", "-o", "/tmp/a", "/in/a.rs"]

    def check(source: bytes) -> int:
        return sandbox.run(Job(argv=argv, files={"a.rs": source}, toolchain="rust")).exit_code

    assert check(b"pub fn f(x: &str) -> usize { x.len() }") == 0
    assert check(b"pub fn f(x: &str) -> usize { x }") == 1
    assert check(b'pub const S: &str = include_str!("/etc/hostname");') == 1


def test_a_command_that_is_not_there_exits_as_in_a_shell(sandbox):
    result = sandbox.run(Job(argv=["nosuch"]))
    assert (result.outcome, result.exit_code) == (Outcome.EXITED, 127)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../b", "", ".", "a//b", "a\0b"])
def test_paths_that_leave_the_sandbox_are_refused(sandbox, path: str):
    with pytest.raises(UserError):
        sandbox.run(Job(argv=["true"], files={path: b""}))
    with pytest.raises(UserError):
        sandbox.run(Job(argv=["true"], collect=[path]))


def test_a_collected_name_is_never_read_by_the_shell(sandbox):
    for name in ("a;id", "$(id)", "-rf", "a b", "a*"):
        with pytest.raises(UserError):
            sandbox.run(Job(argv=["true"], collect=[name]))


@pytest.mark.parametrize("argv", [[], [""], ["A=b", "id"], ["a\0b"]])
def test_a_command_that_is_none_is_refused(sandbox, argv: list[str]):
    with pytest.raises(UserError):
        sandbox.run(Job(argv=argv))


def test_an_odd_program_name_is_a_name_and_no_option(sandbox):
    for name in ("-u", "--help", "-c"):
        assert sandbox.run(Job(argv=[name])).exit_code == 127


def test_what_the_jail_s_own_shell_has_to_say_is_no_word_of_the_job_s(sandbox):
    for collect in ([], ["x"]):
        assert sandbox.run(Job(argv=["sh", "-c", "kill -SEGV $$"], collect=collect)).stderr == b""


def test_an_unknown_toolchain_is_refused(sandbox):
    with pytest.raises(UserError, match="known is: rust"):
        sandbox.run(Job(argv=["true"], toolchain="cobol"))


def test_two_slots_are_never_the_same():
    with slot() as first, slot() as second, slot() as third:
        assert len({first, second, third}) == 3


def test_a_stage_with_a_temporary_folder_of_its_own_takes_no_slot_that_is_in_use(tmp_path: Path, monkeypatch):
    import tempfile

    with slot() as first:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with slot() as second:
            assert first != second
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives each slot a user id of its own")
def test_started_by_root_each_job_has_a_user_of_its_own_that_is_not_root(sandbox):
    mark = f"slots{os.getpid()}"
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(sandbox.run, sh("sleep 5; true # " + mark)) for _ in range(2)]
        seen: set[int] = set()
        while len(seen) < 2 and not all(job.done() for job in running):
            for process in psutil.process_iter(["cmdline", "uids"]):
                if (process.info["cmdline"] or [""])[0] == "sh" and mark in process.info["cmdline"][-1]:
                    seen.add(process.info["uids"].real)
    assert len(seen) == 2
    assert all(FIRST_UID <= uid < FIRST_UID + 64 for uid in seen)


def test_nothing_is_left_in_the_temporary_folder(sandbox, tmp_path: Path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox.run(sh("true", files={"a": b"x"}))
    assert list(tmp_path.iterdir()) == []
