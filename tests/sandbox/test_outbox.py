"""What a job leaves on disk comes back as bytes of plain files, whatever it makes of its folder, also meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workbench.domain.errors import Refused
from workbench.ports.sandbox import Beyond, Job, Limits, Outbox, Outcome, SandboxResult
from workbench.sandbox.bubblewrap import Bubblewrap

MIB = 1 << 20
DISK = Limits(wall_s=60, cpu_s=60, disk_bytes=16 * MIB, file_bytes=1 << 42)


@dataclass
class Taker:
    """Takes ``/out/a`` whenever the job writes a line, and at its end."""

    into: Path
    heard: bytearray = field(default_factory=bytearray)
    taken: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    exit_code: int = -2

    def stdout(self, data: bytes, outbox: Outbox) -> bytes:
        self.heard += data
        for _ in range(data.count(b"\n")):
            self._take(outbox)
        return b"ok\n" * data.count(b"\n")

    def stderr(self, data: bytes) -> None:
        self.heard += data

    def ended(self, outbox: Outbox, exit_code: int) -> None:
        self.exit_code = exit_code
        self._take(outbox)

    def _take(self, outbox: Outbox) -> None:
        place = self.into / str(len(self.taken) + len(self.refused))
        try:
            outbox.take("a", place)
            self.taken.append(place)
        except Refused as error:
            self.refused.append(error.what)
        except FileNotFoundError:
            self.refused.append("nothing")


@pytest.fixture
def left(sandbox: Bubblewrap, tmp_path: Path) -> Callable[..., tuple[Taker, SandboxResult]]:
    def run(script: str, limits: Limits = DISK, **more) -> tuple[Taker, SandboxResult]:
        taker = Taker(tmp_path)
        prologue = "import os, socket, sys, time\nos.chdir('/out')\n"
        files = {"a.py": (prologue + script).encode()}
        job = Job(
            argv=["python", "/in/a.py"],
            files=files,
            python=(),
            limits=limits,
            attendant=taker,
            is_answered=True,
            **more,
        )
        return taker, sandbox.run(job)

    return run


def test_files_and_folders_come_back_with_bytes_and_names_alone(left) -> None:
    script = (
        "os.makedirs('a/b'); open('a/b/c', 'wb').write(bytes(range(256))); open('a/d', 'w'); os.chmod('a/d', 0o4777)\n"
        "os.link('a/b/c', 'a/e'); os.utime('a/d', (1, 1))"
    )
    taker, result = left(script)
    assert (result.outcome, taker.exit_code) == (Outcome.EXITED, 0), taker
    (place,) = taker.taken
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*")) == ["b", "b/c", "d", "e"]
    assert (place / "b" / "c").read_bytes() == (place / "e").read_bytes() == bytes(range(256))
    for each in place.rglob("*"):
        found = each.lstat()
        assert found.st_uid == os.geteuid()
        assert found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)
        assert not found.st_mode & (stat.S_ISUID | stat.S_IXOTH) or stat.S_ISDIR(found.st_mode)
        assert found.st_mtime > 1000


LEFT = {
    "nothing": ("pass", "nothing"),
    "a link in its place": ("os.symlink('/etc', 'a')", "nothing"),
    "a socket in its place": ("socket.socket(socket.AF_UNIX).bind('a')", "nothing"),
    "a link": ("os.mkdir('a'); os.symlink('/etc/passwd', 'a/b')", "b, which is a link"),
    "a link to itself": ("os.mkdir('a'); os.symlink('b', 'a/b')", "b, which is a link"),
    "a link out": ("os.mkdir('a'); os.symlink('../../../in/a.py', 'a/b')", "b, which is a link"),
    "a socket": ("os.mkdir('a'); socket.socket(socket.AF_UNIX).bind('a/b')", "b, which is neither a file nor a folder"),
    "a terabyte of nothing": ("os.mkdir('a'); os.truncate(os.open('a/b', 66), 1 << 40)", "more than 16 MiB"),
    "one file many times": (
        "os.mkdir('a'); open('a/0', 'wb').write(bytes(9 << 20)); os.link('a/0', 'a/1')",
        "more than 16 MiB",
    ),
    "folders without end": (
        "os.mkdir('a'); os.chdir('a')\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')",
        "folders nested deeper than 48",
    ),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_is_no_plain_file_or_too_much_is_refused(left, what: str) -> None:
    script, told = LEFT[what]
    taker, result = left(script)
    assert (result.outcome, result.exit_code) == (Outcome.EXITED, 0), taker
    assert taker.refused == [told]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what is locked")
@pytest.mark.parametrize("place", ["/out", "a", "a/b", "a/b/c"])
def test_what_it_has_locked_is_refused_by_its_name(left, place: str) -> None:
    taker, _ = left(f"os.makedirs('a/b'); open('a/b/c', 'w'); os.chmod({place!r}, 0)")
    assert taker.refused[0].endswith(", which cannot be read")


def test_more_files_than_the_limit_are_refused_without_copying_them_all(left, tmp_path: Path) -> None:
    script = "os.mkdir('a')\nfor n in range(3000): open(f'a/{n}', 'w')"
    taker, _ = left(script, Limits(wall_s=60, disk_bytes=64 * MIB, disk_files=1000))
    assert taker.refused == ["more than 1000 files and folders"]
    assert len(list(tmp_path.rglob("*"))) <= 1002


def test_names_that_are_no_text_come_back_as_they_are(left) -> None:
    taker, _ = left("os.mkdir('a'); open(b'/out/a/\\xff\\x1b[2J', 'w')")
    (place,) = taker.taken
    assert os.listdir(os.fsencode(place)) == [b"\xff\x1b[2J"]


def test_what_is_swapped_while_it_is_taken_leads_nowhere(left, tmp_path: Path) -> None:
    """A thread swaps a file and a folder for links to what the host alone can read, two hundred times taken."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_text("s3cret")
    script = f"""
import threading
os.makedirs('a/d'); os.mkdir('spare')
for place in ('a/f', 'a/d/f', 'spare/f'): open(place, 'w').write('mine')
os.symlink({str(secret)!r}, 'link-d'); os.symlink({str(secret / "f")!r}, 'link-f')
def swap():
    while True:
        for name, link in (('a/d', 'link-d'), ('a/f', 'link-f')):
            for _ in range(2):
                os.rename(name, 'aside'); os.rename(link, name); os.rename('aside', link)
threading.Thread(target=swap, daemon=True).start()
for _ in range(200):
    print(flush=True); sys.stdin.readline()
os._exit(0)
"""
    taker, result = left(script)
    assert result.outcome is Outcome.EXITED
    assert len(taker.taken) + len(taker.refused) == 201
    for place in taker.taken:
        for found in (p for p in place.rglob("*") if p.is_file()):
            assert found.read_text() in ("mine", "")
    assert all("secret" not in told for told in taker.refused)


def test_its_folder_cannot_be_replaced_nor_that_of_another_be_seen(left) -> None:
    script = """
up = '/out/..' * 3
for attempt in (
    lambda: os.rename('/out', '/tmp/o'), lambda: os.rmdir('/out'), lambda: os.listdir(up + '/var/tmp'),
    lambda: os.symlink('/etc', '/out'),
):
    try: attempt()
    except OSError: pass
    else: sys.exit(9)
os.mkdir('a')
"""
    taker, _ = left(script)
    assert taker.exit_code == 0, bytes(taker.heard)


def test_a_job_that_fills_its_disk_is_ended(left) -> None:
    script = (
        "os.mkdir('a')\nfor n in range(100): open(f'a/{n}', 'wb').write(os.urandom(1 << 20))\nos.sync(); time.sleep(50)"
    )
    taker, result = left(script)
    assert result.outcome is Outcome.DISK
    assert taker.exit_code == -1


def test_what_it_hears_and_says_is_passed_on_at_once_and_not_kept(left) -> None:
    taker, result = left(
        "print('one', flush=True); assert sys.stdin.readline() == 'ok\\n'; print('two')\nopen('a', 'w')"
    )
    assert bytes(taker.heard) == b"one\ntwo\n"
    assert (result.stdout, result.exit_code) == (b"", 0)
    assert taker.refused[0] == "nothing"


def test_an_attendant_that_raises_ends_the_job(sandbox: Bubblewrap) -> None:
    class Raises(Taker):
        def stdout(self, data: bytes, outbox: Outbox) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sandbox.run(Job(argv=["sh", "-c", "echo x; sleep 60"], limits=DISK, attendant=Raises(Path("/"))))


def test_nothing_of_it_is_left_on_disk(left, gates: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(gates))
    monkeypatch.setattr("tempfile.tempdir", str(gates))
    left("os.mkdir('a'); os.chdir('a')\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nos.chmod('/out', 0)")
    assert list(gates.iterdir()) == []


def test_a_place_of_the_machine_that_is_not_there_is_named(sandbox: Bubblewrap) -> None:
    with pytest.raises(Refused, match="/no/such/place is not on this machine"):
        sandbox.run(Job(argv=["true"], beyond=Beyond(read=[Path("/no/such/place")])))
