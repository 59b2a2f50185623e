"""A Git repository at one commit as a source: fetched as objects into a private bare repository, never checked out.

Nothing that the repository brings is obeyed: no hooks, filters, attributes, submodules, bundle addresses, links or
configuration. Trees are walked within bounds, and counted before they are walked, so that a tree that names itself ten
times over costs nothing. Facts: reliability T8 and section 6.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from workbench.domain.errors import NotFound, UserError, WorldError
from workbench.fetch import names, programs
from workbench.fetch.decompress import Stop
from workbench.fetch.git_objects import Entry, GitObjects, count_paths, walk
from workbench.fetch.limits import LIMITS, MIB, Limits
from workbench.fetch.names import Reason, Refusals, Taken
from workbench.fetch.writing import FolderWriter
from workbench.ports.fetch import Fetched, Refusal, Source
from workbench.system.programs import look

MEMORY_BYTES = 1024 * MIB  # address space of git, which maps what it reads
SCHEMES = ("https", "http", "ssh", "file")
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_FSCK = re.compile(r"(?:error|fatal): (?:.*object [0-9a-f]{40,64}: )?(?P<rule>[a-zA-Z]+): (?P<detail>.*)")

SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.symlinks": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.bigFileThreshold": "1m",
    "core.packedGitLimit": "64m",
    "core.packedGitWindowSize": "1m",
    "core.deltaBaseCacheLimit": "16m",
    "core.askPass": "",
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.unpackLimit": "1",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    # Old but harmless histories; what a tree may hold is judged by our own walk.
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    "fetch.fsck.badTimezone": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "fetch.fsck.missingEmail": "ignore",
    "fetch.fsck.missingNameBeforeEmail": "ignore",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.file.allow": "always",
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
    "transfer.credentialsInUrl": "die",
    "uploadpack.packObjectsHook": "",
}
# What a person's machine needs to reach the network; nothing else of the environment goes to git.
KEPT_ENVIRONMENT = (
    "PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK", "TMPDIR",
)  # fmt: skip


class GitFetcher:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits

    def fetch(self, source: Source, into: Path, *, wanted: Sequence[str]) -> Fetched:
        """See the port. ``version`` is the full commit id, ``location`` a URL or a path."""
        location = _location(source)
        if not COMMIT.match(source.version):
            raise UserError(
                f"{source.name}: {source.version!r} is not a full commit id",
                "pin it: the 40 digits that `git rev-parse NAME` prints",
            )
        git = look("git").usable()
        with tempfile.TemporaryDirectory(prefix="workbench-git-") as scratch:
            bare = Path(scratch) / "bare"
            command = [git, *_options(), f"--git-dir={bare}"]
            env = _environment()
            self._run(
                [git, *_options(), "init", "-q", "--bare", "--template=", str(bare)], env, Path(scratch), "git init"
            )
            refused = self._bring(command, env, Path(scratch), location, source)
            if refused is not None:
                return Fetched(source, (), (refused,), {"commit": source.version})
            with GitObjects(command, env, Path(scratch), self._limits) as objects:
                return self._take(objects, source, into, wanted)

    def _bring(
        self, command: list[str], env: dict[str, str], cwd: Path, location: str, source: Source
    ) -> Refusal | None:
        """Fetch the commit; a Refusal where git's own check of the objects refuses them."""
        fetch = [
            *command,
            "fetch",
            "-q",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-gc",
        ]
        tries = (
            [*fetch, "--depth=1", "--", location, f"{source.version}:refs/workbench/fetched"],
            [*fetch, "--", location, "+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*"],
        )
        error = ""
        for argv in tries:
            done = programs.run(
                programs.bounded(argv, memory_bytes=MEMORY_BYTES, cpu_s=300),
                env=env,
                cwd=cwd,
                wall_s=self._limits.wall_s,
            )
            error = done.err
            if "fsck" in error or (_FSCK.search(error) and "object" in error):
                return _fsck_refusal(error)
            if done.code == 0:
                return None
        last = (error.strip().splitlines() or ["no message"])[-1]
        raise WorldError(
            f"{source.name}: git cannot fetch {source.version[:12]}: {names.shown(last)}",
            "check the location and the commit id: git ls-remote LOCATION",
        )

    def _take(self, objects: GitObjects, source: Source, into: Path, wanted: Sequence[str]) -> Fetched:
        provenance = {"commit": source.version}
        tree = objects.root_of(source.version)
        if tree is None:
            raise NotFound(f"{source.name} has no commit {source.version}", "check the id: git ls-remote LOCATION")
        refusals, taken, files, kept_bytes = Refusals(self._limits.refusals), Taken(), [], 0
        with FolderWriter(into) as writer:
            try:
                count_paths(objects, tree, self._limits)
                for entry in walk(objects, tree):
                    reason = _refuse(entry, self._limits)
                    if reason is None and names.is_wanted(entry.path, wanted):
                        size = objects.size(entry.id)
                        reason = self._too_large(size) or taken.claim(entry.path)
                        if reason is None:
                            kept_bytes += writer.write(entry.path, (objects.blob(entry.id),))
                            files.append(entry.path)
                    if reason is not None:
                        refusals.add(entry.path, reason)
                    if kept_bytes > self._limits.kept_bytes:
                        raise Stop("size", f"more than {self._limits.kept_bytes} bytes of wanted files")
            except Stop as stop:
                writer.forget()
                return Fetched(source, (), (*refusals.rows(), Refusal("", stop.rule, stop.detail)), provenance)
        return Fetched(source, tuple(sorted(files)), refusals.rows(), provenance | {"size": kept_bytes})

    def _too_large(self, size: int) -> Reason | None:
        return Reason("size", f"{size} bytes") if size > self._limits.member_bytes else None

    def _run(self, argv: list[str], env: dict[str, str], cwd: Path, what: str) -> None:
        done = programs.run(argv, env=env, cwd=cwd, wall_s=self._limits.wall_s)
        if done.code != 0:
            raise WorldError(f"{what} failed: {names.shown(done.err.strip())}", "check the temporary folder's space")


def _location(source: Source) -> str:
    """A URL of an allowed scheme, or the absolute path of a folder; never something git would run."""
    location = source.location
    if not location or location.startswith("-") or any(ord(char) < 32 for char in location):
        raise UserError(f"{source.name}: {location!r} is no location of a repository", "give a URL or a path")
    if "::" in location.split("/", 1)[0]:
        raise UserError(f"{source.name}: a remote helper is not a location", f"use {', '.join(SCHEMES)} or a path")
    scheme = urlsplit(location).scheme
    if "://" in location:
        if scheme not in SCHEMES:
            raise UserError(f"{source.name}: {scheme}:// is not fetched from", f"use {', '.join(SCHEMES)} or a path")
        return location
    path = Path(location).expanduser()
    if path.exists():
        return str(path.absolute())
    if re.match(r"[A-Za-z0-9_.-]+@?[A-Za-z0-9_.-]*:(?!/)", location):
        return location  # user@host:path, over ssh
    raise NotFound(f"{source.name}: there is no repository at {location!r}", "give a URL or a path that exists")


def _options() -> list[str]:
    return [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]


def _environment() -> dict[str, str]:
    kept = {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(SCHEMES),
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
    }


def _fsck_refusal(error: str) -> Refusal:
    for line in error.splitlines():
        if found := _FSCK.search(line):
            return Refusal("", "fsck", names.shown(f"{found['rule']}: {found['detail']}"))
    return Refusal("", "fsck", names.shown(error.strip().splitlines()[0]))


def _refuse(entry: Entry, limits: Limits) -> Reason | None:
    if entry.mode == 0o120000:
        return names.check(entry.path, limits) or Reason("link")
    if entry.mode == 0o160000:
        return names.check(entry.path, limits) or Reason("submodule")
    if entry.mode not in (0o100644, 0o100755, 0o100664, 0o40000):
        return Reason("mode", f"{entry.mode:o}")
    return names.check(entry.path, limits)
