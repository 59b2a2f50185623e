"""How a command ends: whatever the streams, the locale, the reader and the machine are like."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli.edge import as_world_error

COMMAND = [sys.executable, "-m", "workbench.cli.entry"]
QUESTIONS = [["status"], ["log", "--ledger"], ["verify", "--json"], ["--help"]]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "WORKBENCH_"))}
    return {**kept, **changes}


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(clone: Path, question: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *question], cwd=clone, env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_full_disk_behind_standard_output_is_told(clone: Path, question: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *question], cwd=clone, env=environment(), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6
    assert done.stderr.startswith(b"error: the disk is full")
    assert b"Exception ignored" not in done.stderr
    assert done.stderr.count(b"error:") == 1


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_closed_streams_are_taken_as_they_are(clone: Path, question: list[str]) -> None:
    script = f"{' '.join(COMMAND)} {' '.join(question)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], cwd=clone, env=environment()).returncode == 0


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_that_a_locale_lacks_are_shown(tmp_path: Path, locale: dict[str, str], as_json: list[str]) -> None:
    place = os.fsencode(tmp_path) + b"/caf\xc3\xa9 \xe2\x82\xac"
    os.mkdir(place)
    for command in (
        ["init", "agent", *as_json],
        ["status", "--repo", "agent", *as_json],
        ["doctor", "--repo", "agent"],
    ):
        done = subprocess.run([*COMMAND, *command], cwd=place, env=environment(**locale), capture_output=True)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        if "--json" in command:
            assert "agent" in json.dumps(json.loads(done.stdout.decode("utf-8")))
        if command[0] == "init":  # what it shows from now on has a name that is no text
            open(place + b"/agent/\xe9", "wb").close()


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_place_whose_name_is_no_text_is_refused_for_a_hub(
    tmp_path: Path, locale: dict[str, str], as_json: list[str]
) -> None:
    """What runs there could not be written down."""
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)
    command = [*COMMAND, "init", "agent", *as_json]
    done = subprocess.run(command, cwd=place, env=environment(**locale), capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: the path of a hub is UTF-8, and this one is not\n")
    assert b"Traceback" not in done.stderr
    assert os.listdir(place) == []


@pytest.mark.parametrize(
    "command", [["status", "--colour"], ["show", "release/none"], ["show"], ["run", "--nothing"], ["run", "nopipeline"]]
)
def test_programs_get_the_error_on_standard_output_as_well(cli, clone: Path, command: list[str]) -> None:  # type: ignore[no-untyped-def]
    done = cli(clone, *command, "--json")
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode
    assert told["what"]
    assert told["hint"]
    assert done.stdout.count("\n") == 1, "one line: it may end a stream of events"
    assert done.stderr


def test_ctrl_c_ends_a_server_without_a_traceback(clone: Path) -> None:
    worker = [*COMMAND, "versions", "--port", "0"]
    process = subprocess.Popen(
        worker, cwd=clone, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert process.returncode == 0, "ending a server is what Ctrl-C is for"


@pytest.mark.parametrize("folder", ["here", "--repo"])
def test_without_git_every_command_names_it(clone: Path, tmp_path: Path, folder: str) -> None:
    where = {"here": (clone, []), "--repo": (tmp_path, ["--repo", str(clone)])}[folder]
    for command in (["status"], ["log"], ["run", "--dry-run"], ["doctor"], ["undo"], ["gc"], ["pin", "release/none"]):
        done = subprocess.run(
            [*COMMAND, *command, *where[1]], cwd=where[0], env=environment(PATH=str(tmp_path)), capture_output=True
        )
        assert done.returncode == 7, (command, done.stderr)
        assert b"git program is not installed" in done.stderr
        assert b"Traceback" not in done.stderr


def test_an_id_without_a_name_or_a_home_can_work(tmp_path: Path) -> None:
    """As in a container that runs as some number."""
    other = ["unshare", "--map-user=54321"]
    if subprocess.run([*other, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are off here")
    bare = {"PATH": os.environ["PATH"], "WORKBENCH_CACHE_DIR": str(tmp_path / "cache")}
    for command in (["init", "agent"], ["status", "--repo", "agent"], ["log", "--ledger", "--repo", "agent"]):
        done = subprocess.run([*other, *COMMAND, *command], cwd=tmp_path, env=bare, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "uid-54321" in done.stdout


def test_the_systems_refusals_are_explained() -> None:
    assert "the disk is full" in as_world_error(OSError(28, "No space left on device", "/x")).what
    refused = as_world_error(PermissionError(13, "Permission denied", "/x/y"))
    assert refused.what == "Permission denied: /x/y"
    assert "write" in refused.hint


CRASHES = """
from workbench.cli.edge import ended
from workbench.domain.errors import NativeCrash
def crashes():
    raise NativeCrash("llama.cpp in complete", "SIGSEGV", given="a.gguf", log=["last words"])
raise SystemExit(ended(crashes, as_json=True))
"""


def test_a_native_crash_has_an_exit_code_and_tells_its_parts() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHES], env=environment(), capture_output=True, text=True)
    assert done.returncode == 10
    assert done.stderr.splitlines()[:2] == [
        "error: llama.cpp in complete crashed (SIGSEGV) on a.gguf",
        "  | last words",
    ]
    told = json.loads(done.stdout)
    assert told["exit_code"] == 10
    assert (told["crashed"], told["ended"], told["given"]) == ("llama.cpp in complete", "SIGSEGV", "a.gguf")
    assert told["log"] == ["last words"]


@pytest.mark.parametrize("module", ["llama_cpp", "mcp.server", "torch"])
def test_a_library_that_is_not_installed_is_told_with_the_command_that_brings_it(module: str) -> None:
    code = f"""
from workbench.cli.edge import ended
def command():
    raise ModuleNotFoundError("No module named {module}", name="{module}")
raise SystemExit(ended(command, as_json=False))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 7
    what, hint = done.stderr.splitlines()
    assert what == f"error: {module.partition('.')[0]} is not installed"
    assert hint.startswith("  install it: /")
    assert "git-workbench" not in hint


def test_a_crash_in_a_command_itself_says_where_python_stood() -> None:
    code = "from workbench.cli.edge import ended; import ctypes; ended(lambda: ctypes.string_at(0), as_json=False)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV
    assert "in string_at" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "\udcff"], ["show", "raw/x/\udcff"], ["log", "--repo", "\udcff"], ["status", "--repo", "\udcff"],
        ["runs", "show", "\udcff"], ["diff", "\udcff", "\udcff"], ["pin", "release/x", "--why", "\udcff"],
        ["undo", "--why", "\udcff"], ["import", "\udcff", "--name", "x", "--license", "MIT"], ["trust", "\udcff"],
        ["complete", "release/x", "--prompt", "\udcff"], ["bundle", "x", "\udcff"], ["run", "--dry-run", "\udcff"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_argument_that_is_no_text_is_an_error_and_no_traceback(clone: Path, arguments: list[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], cwd=clone, env=environment(), capture_output=True)
    assert done.returncode in (2, 3, 4)
    assert b"Traceback" not in done.stderr
    done.stderr.decode()
