"""A small package index on loopback, real over HTTP; and source distributions for it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

FILES = {
    "src/lib.rs": b"pub fn works() -> bool {\n    true\n}\n",
    "Cargo.toml": b'[package]\nname = "demo"\nlicense = "MIT"\n',
    "PKG-INFO": b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\nLicense-Expression: MIT\n",
    "setup.py": b"raise SystemExit('build code ran')\n",
}


@pytest.fixture
def file_mode() -> int:
    """Of a plain new file, under the umask of whoever runs the tests."""
    umask = os.umask(0o022)
    os.umask(umask)
    return 0o644 & ~umask


def sdist(name: str = "demo", version: str = "1.0", files: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, data in (FILES if files is None else files).items():
            info = tarfile.TarInfo(f"{name}-{version}/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Listed:
    """A file on a project's page. ``sha256`` None: the page gives no digest; ``link`` as the page writes it."""

    name: str
    data: bytes
    sha256: str | None = ""
    yanked: str | None = None
    link: str = ""

    @property
    def digest(self) -> str | None:
        return hashlib.sha256(self.data).hexdigest() if self.sha256 == "" else self.sha256


@dataclass
class Index:
    """``pages`` by project; ``json`` says in which of the two forms they are answered. ``answers`` stand above both."""

    port: int = 0
    server: ThreadingHTTPServer | None = None
    json: bool = False
    pages: dict[str, list[Listed]] = field(default_factory=dict)
    answers: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    password: str = ""
    asked: list[str] = field(default_factory=list)
    authorised: list[str] = field(default_factory=list)

    def offer(self, name: str = "demo-1.0.tar.gz", data: bytes | None = None, **about: str | None) -> Listed:
        """List a file, by default a good source distribution, under the project that its name begins with."""
        listed = Listed(name, sdist() if data is None else data, **about)  # type: ignore[arg-type]
        self.pages.setdefault(name.partition("-")[0], []).append(listed)
        return listed

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple/"

    def answer(self, path: str) -> tuple[int, str, bytes]:
        if path in self.answers:
            return self.answers[path]
        kind, _, rest = path.strip("/").partition("/")
        if kind == "files":
            found = [listed for page in self.pages.values() for listed in page if listed.name == rest]
            return (200, "application/octet-stream", found[0].data) if found else (404, "text/plain", b"")
        if rest not in self.pages:
            return 404, "text/plain", b"nothing here"
        return self._json(rest) if self.json else self._html(rest)

    def _html(self, project: str) -> tuple[int, str, bytes]:
        rows = [
            f'<a href="{listed.link or f"../../files/{listed.name}"}'
            + (f"#sha256={listed.digest}" if listed.digest else "")
            + '"'
            + (f' data-yanked="{listed.yanked}"' if listed.yanked is not None else "")
            + f">{listed.name}</a><br/>"
            for listed in self.pages[project]
        ]
        return 200, "text/html", f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>".encode()

    def _json(self, project: str) -> tuple[int, str, bytes]:
        files = [
            {
                "filename": listed.name,
                "url": listed.link or f"../../files/{listed.name}",
                "hashes": {"sha256": listed.digest} if listed.digest else {},
                **({"yanked": listed.yanked} if listed.yanked is not None else {}),
            }
            for listed in self.pages[project]
        ]
        body = {"meta": {"api-version": "1.0"}, "name": project, "files": files}
        return 200, "application/vnd.pypi.simple.v1+json", json.dumps(body).encode()


@pytest.fixture
def files() -> dict[str, bytes]:
    """What the good source distribution holds."""
    return dict(FILES)


@pytest.fixture
def index() -> Iterator[Index]:
    served = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            given = self.headers.get("Authorization", "")
            served.authorised.append(given)
            if served.password and not given:
                status, kind, body = 401, "text/plain", b"who are you?"
            else:
                status, kind, body = served.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port, served.server = server.server_address[1], server
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()
