"""The Versions API over a real repository, by a real HTTP client and by schemathesis."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from workbench.clock.system import SystemClock
from workbench.domain.contract import ContractRecord
from workbench.domain.ids import ZERO_ID
from workbench.domain.ledger import RefMove
from workbench.domain.manifest import Manifest
from workbench.domain.refs import ACTIVE, MAIN, Kind
from workbench.domain.version import Bump
from workbench.rest.content import content
from workbench.rest.versions import create_app
from workbench.store.git.repository import GitRepository
from workbench.store.payload.cache import PayloadCache

WHO = "A <a@example.com>"
PAGE = b"<html><script>alert(1)</script></html>"  # as conftest publishes it
MODEL = {"kind": "model", "name": "rust", "version": "v1.0.0"}
FILE = "/api/v1/artifacts/dataset/rust/v1.0.0/files/report.html"


@pytest.fixture(scope="module")
def client(repository: GitRepository) -> Iterator[httpx.Client]:
    with TestClient(create_app(repository), base_url="http://localhost") as made:
        yield made


def test_versions_name_what_they_pin(client: httpx.Client) -> None:
    (version,) = client.get("/api/v1/versions").json()
    assert (version["version"], version["active"]) == ("v1.0.0", True)
    detail = client.get("/api/v1/versions/active").json()
    assert detail["release"] == "release/rust/v1.0.0"
    assert "complete" in detail["contract"]["tools"]
    assert detail == client.get("/api/v1/versions/v1.0.0").json()


def test_what_an_etag_stands_for_does_not_change_when_another_version_is_active(
    client: httpx.Client, repository: GitRepository
) -> None:
    one, active, listed = (f"/api/v1/versions{path}" for path in ("/v1.0.0", "/active", ""))
    before = {path: client.get(path) for path in (one, active, listed)}
    old = repository.refs.get(str(ACTIVE))
    assert old is not None
    info = repository.objects.commit(old)
    new = repository.objects.add_commit(info.tree, parents=(old,), message="next\n", who=WHO, time_ms=2000)
    moves = [RefMove(ACTIVE, old, new), RefMove.named("refs/tags/v1.1.0", ZERO_ID, new)]
    repository.refs.swap(moves)
    try:
        for path, known in before.items():
            now, fresh = client.get(path, headers={"if-none-match": known.headers["etag"]}), client.get(path)
            assert now.status_code == (304 if fresh.content == known.content else 200), path
        assert client.get(active).json()["version"] == "v1.1.0"
        assert client.get(one).headers["etag"] == before[one].headers["etag"]
    finally:
        repository.refs.swap([RefMove(move.ref, move.new, move.old) for move in moves])
    assert client.get(active).content == before[active].content


def test_of_two_versions_of_one_commit_the_one_that_was_asked_is_answered(
    client: httpx.Client, repository: GitRepository
) -> None:
    whole, active = (client.get(f"/api/v1/versions/{name}") for name in ("v1.0.0", "active"))
    tag = repository.refs.get("refs/tags/v1.0.0")
    assert tag is not None
    repository.refs.swap([RefMove.named("refs/tags/v1.0.9", ZERO_ID, tag)])
    try:
        assert client.get("/api/v1/versions/v1.0.0").json() == whole.json()
        assert client.get("/api/v1/versions/v1.0.9").json() == {**whole.json(), "version": "v1.0.9"}
        now = client.get("/api/v1/versions/active", headers={"if-none-match": active.headers["etag"]})
        assert now.json()["version"] == "v1.0.9"
    finally:
        repository.refs.swap([RefMove.named("refs/tags/v1.0.9", tag, ZERO_ID)])


def test_the_lineage_leads_back_to_what_it_was_made_from(client: httpx.Client) -> None:
    lineage = client.get("/api/v1/artifacts/release/rust/v1.0.0/lineage").json()
    assert [a["artifact"] for a in lineage["made_from"]] == ["model/rust/v1.0.0"]
    assert lineage["not_here"] == []


def test_a_release_that_came_alone_still_tells_what_it_was_made_from(
    client: httpx.Client, repository: GitRepository
) -> None:
    tag = repository.refs.get("refs/tags/model/rust/v1.0.0")
    assert tag is not None
    path = "/api/v1/artifacts/release/rust/v1.0.0/lineage"
    whole = client.get(path)
    repository.refs.swap([RefMove.named("refs/tags/model/rust/v1.0.0", tag, ZERO_ID)])
    try:
        alone = client.get(path, headers={"if-none-match": whole.headers["etag"]})
        assert alone.status_code == 200
        assert alone.json()["made_from"] == []
        assert [each["artifact"] for each in alone.json()["not_here"]] == ["model/rust/v1.0.0"]
    finally:
        repository.refs.swap([RefMove.named("refs/tags/model/rust/v1.0.0", ZERO_ID, tag)])


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/versions",
        "/api/v1/versions/v1.0.0",
        "/api/v1/artifacts",
        "/api/v1/artifacts?kind=model",
        "/api/v1/artifacts/model/rust/v1.0.0",
        "/api/v1/artifacts/model/rust/v1.0.0/manifest",
        "/api/v1/artifacts/model/rust/v1.0.0/files/file.txt",
        "/api/v1/artifacts/release/rust/v1.0.0/lineage",
        "/api/v1/ledger",
        "/api/v1/runs",
    ],
)
def test_what_has_not_changed_is_answered_with_304(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    assert first.status_code == 200, first.text
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_etag_is_the_object_id(client: httpx.Client, repository: GitRepository) -> None:
    artifact = repository.artifacts.get(repository.artifacts.list(Kind.MODEL)[0])
    manifest = client.get("/api/v1/artifacts/model/rust/v1.0.0/manifest")
    assert manifest.headers["ETag"] == f'"{artifact.tree}"'
    assert manifest.content == repository.objects.read_file(artifact.tree, "manifest.json")
    by_id = client.get(f"/api/v1/objects/{artifact.tree}")
    assert by_id.headers["ETag"] == f'"{artifact.tree}"'
    assert "immutable" in by_id.headers["Cache-Control"]
    assert [e["name"] for e in by_id.json()["entries"]] == ["manifest.json", "payload"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/v1/versions/v1.0.1", 404, "v1.0.0"),
        ("/api/v1/artifacts/model/rast/v1.0.0", 404, "rust"),
        ("/api/v1/artifacts/modle/rust/v1.0.0", 422, "kind"),
        ("/api/v1/artifacts/model/rust/v1", 422, "version"),
        ("/api/v1/artifacts/model/rust/v1.0.0/files/nope", 404, "manifest"),
        ("/api/v1/objects/" + "0" * 40, 404, "no object"),
        ("/api/v1/artifacts/model/rust/v1.0.0/files/a%0Ab", 404, "/openapi.json"),
        ("/api/v1/nothing", 404, "/openapi.json"),
    ],
)
def test_what_is_not_there_is_said_with_a_hint(client: httpx.Client, path: str, status: int, says: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["what"] + answer.json()["hint"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8770"}, 200),
        ({"host": "[::1]:8770"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"origin": "http://localhost:3000"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "testserver"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
        ({"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}, 200),
    ],
)
def test_only_this_machine_s_names_and_pages_are_answered(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    for path in ("/api/v1/versions", "/openapi.json", "/healthz"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or answer.json()["what"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/api/v1/versions", "/api/v1/versions/v1.0.0", FILE, "/healthz", "/openapi.json"])
def test_nothing_can_be_written(client: httpx.Client, method: str, path: str, repository: GitRepository) -> None:
    before = repository.refs.all()
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert repository.refs.all() == before


def test_what_is_answered_is_what_the_schema_says(repository: GitRepository) -> None:
    app = create_app(repository)
    models = {route.path: route.response_model for route in app.routes if isinstance(route, APIRoute)}
    asked = {
        "/api/v1/versions": {},
        "/api/v1/versions/{version}": {"version": "active"},
        "/api/v1/artifacts": {},
        "/api/v1/artifacts/{kind}/{name}/{version}": MODEL,
        "/api/v1/artifacts/{kind}/{name}/{version}/manifest": MODEL,
        "/api/v1/artifacts/{kind}/{name}/{version}/lineage": {**MODEL, "kind": "release"},
        "/api/v1/ledger": {},
        "/api/v1/runs": {},
        "/healthz": {},
    }
    with TestClient(app, base_url="http://localhost") as client:
        for path, parts in asked.items():
            answer = client.get(path.format(**parts)).json()
            kind = TypeAdapter(models[path])
            assert kind.dump_python(kind.validate_python(answer), mode="json") == answer, path


@pytest.mark.parametrize("path", ["/api/v1/versions", "/api/v1/ledger", FILE, "/healthz", "/api/v1/nothing"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert head.status_code == get.status_code
    assert dict(head.headers) == dict(get.headers)


def test_no_browser_takes_content_for_a_page(client: httpx.Client, repository: GitRepository) -> None:
    artifact = repository.artifacts.get(repository.artifacts.list(Kind.DATASET)[0])
    page = "/api/v1/artifacts/dataset/rust/v1.0.0/files/report.html"
    entry = repository.objects.entry(artifact.tree, "payload/report.html")
    assert entry is not None
    for path in (page, f"/api/v1/objects/{entry.id}"):
        answer = client.get(path)
        assert answer.content == PAGE
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["etag"] == f'"{entry.id}"'
    for path in ("/api/v1/versions", "/api/v1/<script>alert(1)</script>", "/api/v1/artifacts/<b>/x/y"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["report.html", "large.bin"])
def test_a_range_is_one_stretch_of_the_file(client: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.rest import versions

    monkeypatch.setattr(versions, "IN_MEMORY", 1000)  # the larger file goes through the cache, in pieces
    path = f"/api/v1/artifacts/dataset/rust/v1.0.0/files/{name}"
    whole = client.get(path)
    data, size = whole.content, len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert int(whole.headers["content-length"]) == size

    def ask(range: str, **headers: str) -> httpx.Response:
        return client.get(path, headers={"range": range, **headers})

    parts = {"bytes=0-0": (0, 1), "bytes=5-9": (5, 10), "bytes=7-": (7, size), "bytes=-3": (size - 3, size)}
    parts |= {"bytes=2-999999999999": (2, size), "bytes=-999999999999": (0, size)}
    for range, (start, stop) in parts.items():
        answer = ask(range)
        assert (answer.status_code, answer.content) == (206, data[start:stop]), range
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer.headers["etag"] == whole.headers["etag"]
    for range in (f"bytes={size}-", "bytes=-0", "bytes=999999999999-"):
        answer = ask(range)
        assert (answer.status_code, answer.content) == (416, b""), range
        assert answer.headers["content-range"] == f"bytes */{size}"
    for range in ("bytes=0-0", f"bytes={size}-"):
        head = client.head(path, headers={"range": range})
        assert (head.status_code, head.headers) == (200, whole.headers), "Range is for GET alone"
    for range in ("bytes=5-2", "bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=a-b", "bytes=" + "9" * 4000 + "-", ""):
        assert ask(range).content == data, range
    assert ask("bytes=0-0", **{"if-range": '"other"'}).content == data
    assert ask("bytes=0-0", **{"if-range": whole.headers["etag"]}).content == data[:1]
    assert ask("bytes=0-0", **{"if-none-match": f'"x", W/{whole.headers["etag"]}'}).status_code == 304


def test_a_large_file_that_was_sent_may_leave_the_cache(
    client: httpx.Client, repository: GitRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from workbench.rest import versions

    cache = PayloadCache(repository.artifacts.pour, tmp_path / "cache")
    monkeypatch.setitem(vars(repository._parts), "cache", cache)
    monkeypatch.setattr(versions, "IN_MEMORY", 1000)
    path = "/api/v1/artifacts/dataset/rust/v1.0.0/files/large.bin"
    for ask in (client.get, client.head):
        assert ask(path).status_code == 200
        assert not opened_below(tmp_path)
        assert cache.trim(0) == 256 * 40


@pytest.mark.parametrize("when", ["http.response.start", "http.response.body"])
def test_a_file_is_closed_when_the_client_goes_away(tmp_path: Path, when: str) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1_000_000)
    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.4"}}
    response = content(Request(scope), tmp_path / "f", etag="e")
    (tmp_path / "f").unlink()
    sent = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == when:
            raise OSError("gone")

    with pytest.raises(ClientDisconnect):
        asyncio.run(response(scope, receive, send))
    assert sent[-1]["type"] == when
    assert not opened_below(tmp_path)


def opened_below(folder: Path) -> list[str]:
    """The files that this process has open there."""
    links = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(fd))
    return [link for link in links if link.startswith(str(folder))]


def test_a_large_file_is_sent_in_bounded_memory(repository: GitRepository, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    size = 96 << 20
    with (tmp_path / "p" / "model.bin").open("wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(4, "big") * (1 << 18))
    staged = repository.artifacts.stage(tmp_path / "p", Manifest(Kind.SHARDS, "large"))
    repository.artifacts.publish(staged, bump=Bump.MINOR, who=WHO, why="test")
    path = "/api/v1/artifacts/shards/large/v1.0.0/files/model.bin"
    program = f"""
import hashlib, resource, sys
from pathlib import Path
from starlette.testclient import TestClient
from workbench.rest.versions import create_app
from workbench.store.git.repository import GitRepository
import asyncio
sent, digest = 0, hashlib.sha256()
async def scene(app):
    global sent
    async def receive():
        await asyncio.Event().wait()
    async def send(message):
        global sent
        assert message.get("status", 200) == 200, message
        sent += len(message.get("body", b"")); digest.update(message.get("body", b""))
    await app({{"type": "http", "method": "GET", "path": {path!r}, "raw_path": b"", "query_string": b"",
               "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http",
               "root_path": "", "client": None, "server": None}}, receive, send)
with GitRepository(Path(sys.argv[1])) as repository:
    app = create_app(repository)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(scene(app))
    print(sent, digest.hexdigest(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    cache = {"WORKBENCH_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program, str(repository.path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **cache})
    assert done.returncode == 0, done.stderr
    sent, digest, grown_kib = done.stdout.split()
    with (tmp_path / "p" / "model.bin").open("rb") as file:
        assert (int(sent), digest) == (size, hashlib.file_digest(file, "sha256").hexdigest())
    assert int(grown_kib) << 10 < size // 3


def test_a_blob_too_large_to_send_is_refused_before_it_is_read(client: httpx.Client, repository: GitRepository) -> None:
    blob = repository.objects.add_blob(bytes(17 << 20))
    answer = client.get(f"/api/v1/objects/{blob}")
    assert answer.status_code == 422
    assert "git" in answer.json()["hint"]


def test_long_lists_are_paged_without_loss_or_repeat(client: httpx.Client, repository: GitRepository) -> None:
    whole = client.get("/api/v1/ledger?limit=1000").json()
    assert len(whole) > 3
    found, before = [], ""
    while page := client.get(f"/api/v1/ledger?limit=2{before}").json():
        found += page
        before = f"&before={page[-1]['counter']}"
    assert found == whole
    assert client.get("/api/v1/ledger?before=999999999").json() == whole
    assert client.get("/api/v1/runs?before=01ARZ3NDEKTSV4RRFFQ69G5FAV").json() == []
    assert client.get("/api/v1/runs?before=../../x").status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/artifacts/dataset/rust/v1.0.0/files/../manifest.json",
        "/api/v1/artifacts/dataset/rust/v1.0.0/files/%2e%2e/manifest.json",
        "/api/v1/artifacts/dataset/rust/v1.0.0/files/..%2fmanifest.json",
        "/api/v1/artifacts/dataset/rust/v1.0.0/files//etc/passwd",
        "/api/v1/artifacts/dataset/rust/v1.0.0/files/%00",
        "/api/v1/artifacts/dataset/..%2f..%2fx/v1.0.0",
        "/api/v1/versions/refs%2fheads%2fmain",
        "/api/v1/versions/--help",
        "/api/v1/versions/v1.0.0%0a",
        "/api/v1/objects/HEAD",
        "/api/v1/objects/main",
    ],
)
def test_names_that_lead_elsewhere_lead_nowhere(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert answer.json()["what"]


HOSTILE = b"import os, pathlib\npathlib.Path(%r).touch()\nwhile True: pass\n"


def test_the_contract_of_a_version_is_told_as_it_was_recorded_and_nothing_is_imported(
    client: httpx.Client, repository: GitRepository, tmp_path: Path
) -> None:
    main = repository.refs.get(str(MAIN))
    assert main is not None
    marker = tmp_path / "ran"
    code = HOSTILE % str(marker).encode()
    tree = repository.objects.add_tree(repository.objects.commit(main).tree, {"agents/bad.py": code})
    made = repository.objects.add_commit(tree, parents=(main,), message="bad\n", who=WHO, time_ms=2000)
    tag = repository.objects.add_tag("v7.0.0", made, message="bad", who=WHO, time_ms=2000)
    repository.refs.swap([RefMove.named("refs/tags/v7.0.0", ZERO_ID, tag)])
    try:
        first = client.get("/api/v1/versions/v7.0.0")
        assert (first.status_code, first.json()["contract"]) == (200, None)
        assert first.json()["no_contract"] == f"it is not recorded yet; `workbench contract {made}` does that"
        agents = repository.objects.entry(made, "agents")
        assert agents is not None
        repository.contracts.put(ContractRecord(agents.id, {}, None, "bad.py, line 3: it never ends"))
        told = client.get("/api/v1/versions/v7.0.0", headers={"if-none-match": first.headers["etag"]})
        assert told.json()["no_contract"] == "bad.py, line 3: it never ends"
        assert client.get("/api/v1/versions/v1.0.0").json()["contract"]["tools"]
        assert [found["version"] for found in client.get("/api/v1/versions").json()] == ["v7.0.0", "v1.0.0"]
    finally:
        repository.refs.swap([RefMove.named("refs/tags/v7.0.0", tag, ZERO_ID)])
    assert not marker.exists()


def test_a_branch_is_never_a_version(client: httpx.Client, repository: GitRepository) -> None:
    main = repository.refs.get(str(MAIN))
    assert main is not None
    branch = RefMove.named("refs/heads/v7.7.7", ZERO_ID, main)
    repository.refs.swap([branch])
    try:
        assert client.get("/api/v1/versions/v7.7.7").status_code == 404
    finally:
        repository.refs.swap([RefMove(branch.ref, main, ZERO_ID)])


def test_the_command_serves_under_the_address_it_listens_on(repository: GitRepository) -> None:
    command = [sys.executable, "-m", "workbench.cli.entry", "versions", "--port", "0", "--host"]
    with subprocess.Popen(
        [*command, "127.0.0.2", "--repo", str(repository.path)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().split()[3]
            assert address.startswith("http://127.0.0.2:")
            assert httpx.get(address, timeout=60).json()[0]["version"] == "v1.0.0"
            assert httpx.get(address, headers={"host": "127.0.0.3"}, timeout=60).status_code == 421
        finally:
            server.terminate()
            assert server.wait(20) in (0, -15, 143)


def test_one_record_that_cannot_be_read_does_not_hide_the_others(
    client: httpx.Client, repository: GitRepository
) -> None:
    runs = [SystemClock().ulid() for _ in range(3)]
    records = [b"{", b'{"format": 99}', b"\xff"]
    try:
        for run, record in zip(runs, records, strict=True):
            repository.runs.write(run, {"run.json": record})
        found = client.get("/api/v1/runs").json()
        assert {each["id"] for each in found} == set(runs)
        assert all(each["unreadable"] for each in found)
    finally:
        repository.runs.delete(runs)


@pytest.mark.parametrize("half", ["%ED%A0%80", "%FF", "%ED%A0%BD%ED%B8%80"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/versions/{}", "/api/v1/artifacts/raw/{}/v1.0.0", "/api/v1/artifacts/dataset/rust/v1.0.0/files/{}",
        "/api/v1/artifacts?name={}", "/api/v1/artifacts?kind={}", "/api/v1/runs?before={}", "/api/v1/ledger?limit={}",
        "/api/v1/objects/{}", "/{}",
    ],
)  # fmt: skip
def test_half_a_character_in_a_request_is_told_and_never_a_fault_of_the_server(
    client: httpx.Client, path: str, half: str
) -> None:
    assert client.get(path.format(half)).status_code in (200, 404, 422)
