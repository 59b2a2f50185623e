"""Reading objects of a fetched repository through ``git cat-file``, and walking trees within bounds. No checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from workbench.domain.errors import WorldError
from workbench.fetch import programs
from workbench.fetch.decompress import Stop
from workbench.fetch.limits import Limits

FOLDER = 0o40000
ENTRIES = 20_000  # of one tree


@dataclass(frozen=True)
class Entry:
    path: str  # bytes that are not UTF-8 as surrogates
    mode: int
    id: str


class GitObjects:
    """Two long-lived ``cat-file`` processes: one says what an object is, one gives its bytes."""

    def __init__(self, command: list[str], env: Mapping[str, str], cwd: Path, limits: Limits) -> None:
        self._limits = limits
        self._checks = _start([*command, "cat-file", "--batch-check"], env, cwd)
        self._reads = _start([*command, "cat-file", "--batch"], env, cwd)

    def __enter__(self) -> GitObjects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._checks, self._reads):
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            programs.end(process)

    def root_of(self, commit: str) -> str | None:
        """The id of a commit's tree; None where there is no such commit."""
        if self._check(commit)[1] != "commit":
            return None
        return self._check(f"{commit}^{{tree}}")[0]

    def size(self, id: str) -> int:
        return self._check(id)[2]

    def tree(self, id: str) -> list[Entry]:
        """The entries of one tree, with their names alone as paths."""
        _, kind, size = self._check(id)
        if kind != "tree":
            raise Stop("tree", f"a {kind or 'missing object'} stands where a folder should be")
        if size > self._limits.tree_bytes:
            raise Stop("count", f"one folder's list is {size} bytes long")
        entries = list(_parse(self.blob(id), len(id) // 2))
        if len(entries) > ENTRIES:
            raise Stop("count", f"one folder has {len(entries)} entries")
        return entries

    def blob(self, id: str) -> bytes:
        assert self._reads.stdin is not None
        assert self._reads.stdout is not None
        self._reads.stdin.write(f"{id}\n".encode())
        self._reads.stdin.flush()
        header = self._reads.stdout.readline().split()
        if len(header) != 3:
            raise Stop("missing", f"object {id[:12]} is not there")
        size = int(header[2])
        data = self._reads.stdout.read(size + 1)
        if len(data) != size + 1:
            raise WorldError("git cat-file ended early", "try again; see whether memory or disk ran out")
        return data[:-1]

    def _check(self, name: str) -> tuple[str, str, int]:
        assert self._checks.stdin is not None
        assert self._checks.stdout is not None
        self._checks.stdin.write(f"{name}\n".encode())
        self._checks.stdin.flush()
        header = self._checks.stdout.readline().decode().split()
        if len(header) != 3:
            return ("", "", 0)
        return header[0], header[1], int(header[2])


def count_paths(objects: GitObjects, root: str, limits: Limits) -> int:
    """How many paths a walk would give, counted once for each distinct tree; Stop where too many or too deep."""
    sizes: dict[str, int] = {}
    depths: dict[str, int] = {}
    waiting: list[tuple[str, list[str] | None]] = [(root, None)]
    open_trees: set[str] = set()
    while waiting:
        id, below = waiting.pop()
        if id in sizes:
            continue
        if below is None:
            entries = objects.tree(id)
            below = [entry.id for entry in entries if entry.mode == FOLDER]
            sizes_here = len(entries)
            open_trees.add(id)
            if len(open_trees) > limits.depth:
                raise Stop("depth", f"folders nested deeper than {limits.depth}")
            waiting.append((id, [str(sizes_here), *below]))
            waiting.extend((child, None) for child in below if child not in sizes)
            continue
        open_trees.discard(id)
        own, children = int(below[0]), below[1:]
        sizes[id] = own + sum(sizes[child] for child in children)
        depths[id] = 1 + max((depths[child] for child in children), default=0)
        if sizes[id] > limits.paths:
            raise Stop("count", f"more than {limits.paths} paths")
        if depths[id] > limits.depth:
            raise Stop("depth", f"folders nested deeper than {limits.depth}")
    return sizes[root]


def walk(objects: GitObjects, root: str) -> Iterator[Entry]:
    """Every entry that is no folder, in Git's order."""
    waiting = [("", root)]
    while waiting:
        prefix, id = waiting.pop()
        below: list[tuple[str, str]] = []
        for entry in objects.tree(id):
            path = prefix + entry.path
            if entry.mode == FOLDER:
                below.append((f"{path}/", entry.id))
            else:
                yield Entry(path, entry.mode, entry.id)
        waiting.extend(reversed(below))


def _parse(data: bytes, id_bytes: int) -> Iterator[Entry]:
    """``<mode> <name>\\0<id>``, again and again."""
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 8)
        end = data.find(b"\0", blank)
        mode = data[at:blank]
        if blank < 0 or end < 0 or end + 1 + id_bytes > len(data) or not mode.isdigit():
            raise Stop("tree", "a tree object is broken")
        name = data[blank + 1 : end].decode("utf-8", "surrogateescape")
        if "/" in name:
            raise Stop("tree", "a name in a tree holds a slash")
        yield Entry(name, int(mode, 8), data[end + 1 : end + 1 + id_bytes].hex())
        at = end + 1 + id_bytes


def _start(argv: list[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
