"""Power cuts, made: ``python powercut.py FOLDER FILE_SYSTEM WHAT=COUNT ...`` as root. Started by ``test_powercut``.

The repository lies on a file system in an image, and the image on an xfs that copies files at once (4 ms, not torn). A
copy taken the moment something is acknowledged holds what had reached the device by then, as after a power cut. It is
mounted, and must hold what was acknowledged. Prints one JSON object: how many were acknowledged, which of them are
lost, and what is damaged. To be run in a process and mount namespace of its own, whose end unmounts all.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workbench.domain.ids import ZERO_ID, ObjectId, make_ulid
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import Kind
from workbench.domain.version import Bump
from workbench.store.git.repository import GitRepository

WHO = "Ada <ada@example.com>"
MIB = 1 << 20


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def workbench(*arguments: str | Path) -> str:
    return run(sys.executable, "-m", "workbench.cli.entry", *arguments)


class Disk:
    def __init__(self, folder: Path, file_system: str) -> None:
        self._around, self.place, self._cut_place = (folder / name for name in ("around", "disk", "cut"))
        for each in (self._around, self.place, self._cut_place):
            each.mkdir()
        self._file_system = file_system
        _make(folder / "around.img", "xfs", 8 << 30)  # sparse
        run("mount", "-o", "loop", folder / "around.img", self._around)
        _make(self._image, file_system, 400 * MIB)
        run("mount", "-o", "loop", self._image, self.place)

    @property
    def _image(self) -> Path:
        return self._around / "image"

    def cut(self) -> Path:
        copy = self._around / f"cut-{os.urandom(4).hex()}"
        run("cp", "--reflink=always", self._image, copy)
        return copy

    @contextmanager
    def after(self, cut: Path) -> Iterator[Path]:
        """The file system as it is when the machine is on again."""
        options = "loop,nouuid" if self._file_system == "xfs" else "loop"
        run("mount", "-o", options, cut, self._cut_place)
        try:
            yield self._cut_place
        finally:
            run("umount", self._cut_place)
            cut.unlink()


def _make(image: Path, file_system: str, size: int) -> None:
    with open(image, "wb") as file:
        file.truncate(size)
    run(f"mkfs.{file_system}", "-q", image)


@dataclass
class Trial:
    disk: Disk
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def hub(self) -> Path:
        return self.disk.place / "agent.git"

    @property
    def clone(self) -> Path:
        return self.disk.place / "agent"

    def expect(self, what: str, refs: dict[str, str]) -> None:
        """It was acknowledged just now that these refs have these values."""
        cut = self.disk.cut()
        self.acknowledged += 1
        with self.disk.after(cut) as place:
            found = refs_of(place / "agent.git")
            gone = [ref for ref, value in refs.items() if found.get(ref, "") != value]
            if gone:
                self.lost.append(f"{what}: {', '.join(gone)}")
            self.check(what, place / "agent.git")

    def check(self, what: str, hub: Path) -> None:
        done = subprocess.run(
            ["git", f"--git-dir={hub}", "fsck", "--strict", "--no-dangling"], capture_output=True, text=True
        )
        said = [
            line for line in (done.stdout + done.stderr).splitlines() if "unborn" not in line and "notice" not in line
        ]
        if done.returncode or said:
            self.damaged.append(f"{what}: {said[:3]}")


def refs_of(hub: Path) -> dict[str, str]:
    listed = run("git", f"--git-dir={hub}", "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split() for line in listed.splitlines())


# --- what is acknowledged ---------------------------------------------------------------------------------------------


def commit_in(clone: Path, message: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    run("git", *who, "commit", "--quiet", "--allow-empty", "--message", message, cwd=clone)
    return run("git", "rev-parse", "HEAD", cwd=clone).strip()


def pushes(trial: Trial, count: int) -> None:
    for number in range(count):
        commit = commit_in(trial.clone, str(number))
        refs = (
            ["refs/heads/main"],
            [f"refs/heads/folder-{number}/one"],
            [f"refs/heads/x-{number}", f"refs/heads/y/{number}", f"refs/heads/z/{number}/z"],
        )[number % 3]
        run("git", "push", "--quiet", "-o", "ci.skip", "hub", *(f"HEAD:{ref}" for ref in refs), cwd=trial.clone)
        trial.expect(f"push {number}", dict.fromkeys(refs, commit))


def deletions(trial: Trial, count: int) -> None:
    """A branch that was packed, or not, and moved since; then it is deleted, and the folder that it was alone in."""
    for number in range(count):
        ref = f"refs/heads/gone-{number}/deep/{number}"
        for part in ("a", "b"):
            commit = commit_in(trial.clone, f"{number} {part}")
            run("git", "push", "--quiet", "-o", "ci.skip", "hub", f"HEAD:{ref}", cwd=trial.clone)
            if part == "a" and number % 2:
                run("git", f"--git-dir={trial.hub}", "-c", "core.fsync=all", "pack-refs", "--all")
        trial.expect(f"moved {number}", {ref: commit})
        with GitRepository(trial.hub) as repository:
            repository.ledger.change(
                Action.UNDO, [RefMove.named(ref, ObjectId(commit), ZERO_ID)], who=WHO, why="delete"
            )
        trial.expect(f"deleted {number}", {ref: ""})


def release(repository: GitRepository, folder: Path, number: int, kind: Kind = Kind.RELEASE) -> str:
    payload = Path(tempfile.mkdtemp(prefix="payload-", dir=folder))
    (payload / "weights").write_bytes(random.Random(number).randbytes(3 * MIB if number % 10 == 0 else 4000))
    staged = repository.artifacts.stage(payload, Manifest(kind, "rust", stage="test"))
    return repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why=f"number {number}").tag.short


def pins(trial: Trial, count: int) -> None:
    """Pins and undos by turns, through the command line."""
    with GitRepository(trial.hub) as repository:
        names = [release(repository, trial.disk.place, number) for number in range(2)]
    for number in range(count):
        if number % 2:
            workbench("undo", "--repo", trial.hub)
        else:
            workbench("pin", names[number // 2 % 2], "--repo", trial.hub)
        trial.expect(f"{'undo' if number % 2 else 'pin'} {number}", refs_of(trial.hub))


def publications(trial: Trial, count: int) -> None:
    with GitRepository(trial.hub) as repository:
        for number in range(count):
            name = release(repository, trial.disk.place, number, Kind.MODEL)
            trial.expect(f"publication {number}", refs_of(trial.hub))
            assert f"refs/tags/{name}" in refs_of(trial.hub)


def checkpoints(trial: Trial, count: int) -> None:
    with GitRepository(trial.hub) as repository:
        run_id = make_ulid(time.time_ns() // 1_000_000, os.urandom(10))
        for number in range(count):
            if number % 5 == 0:
                run_id = make_ulid(time.time_ns() // 1_000_000, os.urandom(10))
            folder = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=trial.disk.place))
            (folder / "state").write_bytes(random.Random(number).randbytes(MIB))
            repository.runs.write(run_id, {"note": str(number).encode()}, folders={"checkpoint/train": folder})
            trial.expect(f"checkpoint {number}", refs_of(trial.hub))


def appends(trial: Trial, count: int) -> None:
    with GitRepository(trial.hub) as repository:
        for number in range(count):
            stream = f"stream-{number // 20}"
            repository.journals.append(stream, {"number": number})
            cut = trial.disk.cut()
            trial.acknowledged += 1
            with trial.disk.after(cut) as place, GitRepository(place / "agent.git") as after:
                if [record["number"] for _, record in after.journals.read(stream)][-1:] != [number]:
                    trial.lost.append(f"append {number}")
            if number % 20 == 13:
                repository.journals.seal(stream)
                trial.expect(f"seal {number}", refs_of(trial.hub))


def unbundles(trial: Trial, count: int) -> None:
    other = trial.disk.place.parent / "other"
    workbench("init", other)
    for number in range(count):
        bundle = trial.disk.place.parent / f"{number}.bundle"
        with GitRepository(other.with_suffix(".git")) as repository:
            name = release(repository, trial.disk.place.parent, number, Kind.TOKENIZER)
        workbench("bundle", bundle, name, "--repo", other.with_suffix(".git"))
        before = refs_of(trial.hub)
        workbench("unbundle", bundle, *(["--trust"] if number % 2 else []), "--repo", trial.hub)
        assert before != refs_of(trial.hub)
        trial.expect(f"unbundle {number}", refs_of(trial.hub))


def inits(trial: Trial, count: int) -> None:
    for number in range(count):
        path = trial.disk.place / f"new-{number}" / "agent"
        workbench("init", path)
        cut = trial.disk.cut()
        trial.acknowledged += 1
        with trial.disk.after(cut) as place:
            again = place / path.relative_to(trial.disk.place)
            hub, clone = again.with_suffix(".git"), again
            if not (hub / "HEAD").is_file() or refs_of(hub) != refs_of(path.with_suffix(".git")):
                trial.lost.append(f"hub {number}")
                continue
            for name in ("hooks/pre-receive", "hooks/proc-receive", "config", "info/attributes"):
                if (hub / name).read_bytes() != (path.with_suffix(".git") / name).read_bytes():
                    trial.lost.append(f"{name} of hub {number}")
            status = subprocess.run(["git", "-C", clone, "status", "--porcelain"], capture_output=True, text=True)
            if status.returncode or status.stdout:
                trial.lost.append(f"clone {number}: {status.stdout}{status.stderr}")
            trial.check(f"init {number}", hub)


def moments(trial: Trial, count: int) -> None:
    """Cuts at any moment of pushes and ledger changes of several refs: each is all there or not at all, and those that
    were acknowledged before the cut are there."""
    done: list[tuple[str, str]] = []  # name of the group of refs, and their value
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            commit = commit_in(trial.clone, str(number))
            refs = [f"refs/heads/{letter}-{number}/{letter}" for letter in "abc"]
            run("git", "push", "--quiet", "-o", "ci.skip", "hub", *(f"HEAD:{ref}" for ref in refs), cwd=trial.clone)
            done.append((str(number), commit))

    worker = threading.Thread(target=work)
    worker.start()
    cuts: list[tuple[Path, int]] = []
    try:
        for _ in range(count):
            time.sleep(random.uniform(0, 0.1))
            before = len(done)
            cuts.append((trial.disk.cut(), before))
    finally:
        ended.set()
        worker.join()
    trial.acknowledged += len(done)
    for index, (cut, num_done) in enumerate(cuts):
        with trial.disk.after(cut) as place:
            hub = place / "agent.git"
            with GitRepository(hub) as repository:  # rolls forward what was cut off
                if repository.unfinished:
                    trial.damaged.append(f"cut {index}: {repository.unfinished}")
            found = refs_of(hub)
            trial.check(f"cut {index}", hub)
            for number in range(1, len(done) + 2):
                values = {found.get(f"refs/heads/{letter}-{number}/{letter}", "") for letter in "abc"}
                if len(values) != 1:
                    trial.damaged.append(f"cut {index}: push {number} is there in part")
                elif number <= num_done and values != {done[number - 1][1]}:
                    trial.lost.append(f"cut {index}: push {number}")


WHAT: dict[str, Callable[[Trial, int], None]] = {
    each.__name__: each
    for each in (pushes, deletions, pins, publications, checkpoints, appends, unbundles, inits, moments)
}


def main(folder: Path, file_system: str, *wanted: str) -> None:
    trial = Trial(Disk(folder, file_system))
    workbench("init", trial.clone)
    run("sync")
    for each in wanted:
        what, _, count = each.partition("=")
        WHAT[what](trial, int(count))
    print(json.dumps({"acknowledged": trial.acknowledged, "lost": trial.lost, "damaged": trial.damaged}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
