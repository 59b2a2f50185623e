"""What a process of the hub has of the push that started it: nothing that would rule the work of those that follow."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import hook_client
from workbench.hub import surroundings
from workbench.hub.layout import FOLDER, HubLayout


def open_files(process: Path) -> set[str]:
    found = set()
    for fd in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed just now
            found.add(os.readlink(fd))
    return found


def masked(process: Path, name: str) -> set[signal.Signals]:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(f"{name}:"))
    mask = int(line.split()[1], 16)
    return {
        number for number in signal.valid_signals() if isinstance(number, signal.Signals) and mask >> number - 1 & 1
    }


def test_a_process_of_the_hub_holds_no_file_of_the_push_that_started_it_and_is_deaf_to_nothing(
    hub: Any, tmp_path: Path
) -> None:
    hub.edit({"agents/a.py": "x = 1\n"})
    ignored = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}

    def deafened() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    with open(tmp_path / "lock of a job", "w") as lock:
        push = ["git", "-C", str(hub.clone), "push", "-q", "-o", "run.wait=60", "hub", "main"]
        subprocess.run(push, check=True, env=hub.env, pass_fds=[lock.fileno()], preexec_fn=deafened)
    for role in ("policy", "worker"):
        process = Path("/proc", str(hub.process(role)))
        assert lock.name not in open_files(process)
        assert masked(process, "SigIgn") & ignored == set()
        hub.until(lambda process=process: not masked(process, "SigBlk") & ignored)  # while it forks, all are blocked


def test_a_process_of_the_hub_has_neither_secrets_nor_limits_of_the_push_that_started_it(
    hub: Any, tmp_path: Path
) -> None:
    hub.edit({"agents/a.py": "x = 1\n"})
    names = ("MY_TOKEN", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "GIT_TRACE2", "LD_PRELOAD")
    own = {name: str(tmp_path / "gone") for name in names}
    environment = {**hub.env, **own, "WORKBENCH_HUB_IDLE_S": "10m", "CARGO_HOME": "/cargo"}

    def restricted() -> None:
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_CPU, (1000, resource.getrlimit(resource.RLIMIT_CPU)[1]))

    push = ["git", "-C", str(hub.clone), "push", "-o", "run.wait=60", "hub", "main"]
    done = subprocess.run(push, env=environment, capture_output=True, text=True, preexec_fn=restricted)
    assert "succeeded" in done.stderr
    for role in ("policy", "worker"):
        process = Path("/proc", str(hub.process(role)))
        variables = dict(pair.split("=", 1) for pair in (process / "environ").read_text().split("\0") if pair)
        assert variables.keys() & own.keys() == set()
        assert (variables["CARGO_HOME"], variables["PATH"][-4:]) == ("/cargo", hub.env["PATH"][-4:])
        umask = ~hub.path.stat().st_mode & 0o077 | 0o002
        assert f"Umask:\t{umask:04o}\n" in (process / "status").read_text()
        assert resource.prlimit(hub.process(role), resource.RLIMIT_CPU)[0] == resource.getrlimit(resource.RLIMIT_CPU)[1]
    assert "WORKBENCH_HUB_IDLE_S='10m' is no number of seconds" in HubLayout(hub.path).log.read_text()


def test_a_hub_without_the_folder_of_its_processes_gets_one_or_says_in_a_line_why_not(hub: Any) -> None:
    shutil.rmtree(hub.path / FOLDER)
    hub.edit({"README": "one\n"})
    assert hub.push("main").accepted
    assert (hub.path / FOLDER).stat().st_mode & 0o777 == 0o700
    hub.kill("policy")
    hub.kill("worker")
    shutil.rmtree(hub.path / FOLDER)
    (hub.path / FOLDER).symlink_to("/nonexistent/place")
    hub.edit({"README": "two\n"})
    pushed = hub.push("main")
    assert not pushed.accepted
    assert "cannot be started, so the push is refused: No such file or directory" in pushed.text
    assert "Traceback" not in pushed.text
    (hub.path / FOLDER).unlink()


def test_the_python_client_passes_on_what_the_hub_does() -> None:
    assert tuple(name.decode() for name in hook_client.KEPT) == surroundings.KEPT
    assert tuple(name.decode() for name in hook_client.KEPT_PREFIXES) == surroundings.KEPT_PREFIXES


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20", 20.0), ("0", 0.0), ("", None), *((t, None) for t in ("10m", "nan", "inf", "-1", "1e9"))],
)
def test_how_long_a_process_stays_is_a_number_of_seconds_or_the_usual_one(text: str, seconds: float | None) -> None:
    assert surroundings.idle_s({surroundings.IDLE_VARIABLE: text}) == seconds
