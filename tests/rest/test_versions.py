"""The Versions API over a real repository, by a real HTTP client and by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from workbench.app.template import template_files
from workbench.clock.system import SystemClock
from workbench.domain.ids import EMPTY_TREE, ZERO_ID
from workbench.domain.ledger import Action, RefMove
from workbench.domain.manifest import InputEntry, Manifest
from workbench.domain.refs import MAIN, Kind
from workbench.domain.version import Bump
from workbench.rest.versions import create_app
from workbench.runner.pin import pin
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "A <a@example.com>"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitRepository]:
    folder = tmp_path_factory.mktemp("rest")
    init_hub(folder / "hub.git")
    with GitRepository(folder / "hub.git") as made:
        tree = made.objects.add_tree(EMPTY_TREE, dict(template_files()))
        start = made.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
        made.ledger.change(Action.INIT, [RefMove(str(MAIN), ZERO_ID, start)], who=WHO, why="start")
        model = _publish(made, folder / "model", Manifest(Kind.MODEL, "rust", params={"depth": 2}))
        inputs = (InputEntry(Kind.MODEL, "rust", model.tree),)
        release = _publish(made, folder / "release", Manifest(Kind.RELEASE, "rust", inputs=inputs), [model])
        pin(made, release, clock=SystemClock(), who=WHO)
        yield made


def _publish(repository, folder: Path, manifest: Manifest, inputs=()):  # type: ignore[no-untyped-def]
    folder.mkdir()
    (folder / "file.txt").write_text(folder.name)
    staged = repository.artifacts.stage(folder, manifest)
    lineage = [(a.tag, a.commit) for a in inputs]
    return repository.artifacts.publish(staged, bump=Bump.MINOR, inputs=lineage, who=WHO, why="test")


@pytest.fixture(scope="module")
def client(repository: GitRepository) -> Iterator[httpx.Client]:
    with TestClient(create_app(repository)) as made:
        yield made


def test_versions_name_what_they_pin(client: httpx.Client) -> None:
    (version,) = client.get("/api/v1/versions").json()
    assert (version["version"], version["active"]) == ("v1.0.0", True)
    detail = client.get("/api/v1/versions/active").json()
    assert detail["release"] == "release/rust/v1.0.0"
    assert "complete" in detail["contract"]["tools"]
    assert detail == client.get("/api/v1/versions/v1.0.0").json()


def test_the_lineage_leads_back_to_what_it_was_made_from(client: httpx.Client) -> None:
    lineage = client.get("/api/v1/artifacts/release/rust/v1.0.0/lineage").json()
    assert [a["artifact"] for a in lineage["made_from"]] == ["model/rust/v1.0.0"]


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


def test_another_host_name_is_refused(client: httpx.Client) -> None:
    assert client.get("/api/v1/versions", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(client: httpx.Client, method: str, repository: GitRepository) -> None:
    before = repository.refs.all()
    assert client.request(method, "/api/v1/versions").status_code == 405
    assert repository.refs.all() == before
