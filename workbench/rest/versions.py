"""The Versions API: read-only REST over what the repository holds.

What is named by an object id never changes: its ETag is that id and it is cached for good. What is named by a tag or a
version is answered with the id of its object as ETag, and revalidated; so such an answer tells nothing that can change
while the object stays. What can change (lists, the active version, a contract) has a digest of what it tells. Every
GET can be asked by HEAD. Nothing here writes, and nothing imports the code of a commit. Not here: ranges and large
files (``content``), who may ask (``guard``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

import workbench
from workbench.domain import ids, refs
from workbench.domain.canonical import digest_of
from workbench.domain.errors import Corrupt, NotFound, UserError, WorkbenchError
from workbench.domain.refs import ArtifactTag, Kind
from workbench.domain.run import RunRecord
from workbench.pipeline.records import RECORD
from workbench.ports.store import Artifact, Repository
from workbench.rest.content import REVALIDATE, content, from_memory, headers_of, is_known
from workbench.rest.guard import LOOPBACK, Guard
from workbench.runner import lookup
from workbench.versions import describe, passed_over

IMMUTABLE = "public, max-age=31536000, immutable"
IN_MEMORY = 16 << 20  # bytes; a larger payload file goes through the cache on disk, a larger blob is for git

_BYTES: dict[int | str, dict[str, Any]] = {
    206: {"description": "the range that was asked for"},
    416: {"description": "the range begins after the end"},
}
Route = TypeVar("Route", bound=Callable[..., Any])
KindName = Annotated[Kind, Path(description="raw, filtered, dataset, tokenizer, shards, model, metrics or release")]
Name = Annotated[str, Path(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]
_NUMBER = "(0|[1-9][0-9]{0,8})"
VersionName = Annotated[str, Path(pattern=rf"^v{_NUMBER}\.{_NUMBER}\.{_NUMBER}$", examples=["v1.0.0"])]
Limit = Annotated[int, Query(ge=1, le=1000)]
Id = Annotated[str, Path(pattern=r"^[0-9a-f]{40}$", description="a Git object id")]


class Problem(BaseModel):
    """An error: what is wrong, and what to do."""

    what: str
    hint: str = Field(default="")


class VersionFacts(BaseModel):
    version: str
    commit: str
    tree: str
    message: str
    author: str
    time_s: int


class VersionInfo(VersionFacts):
    active: bool


class VersionDetail(VersionFacts):
    release: str = Field(description="short tag of the release it pins; empty when none")
    state: dict[str, Any]
    contract: dict[str, Any] | None = Field(description="as it was recorded; null when there is none")
    made_by: dict[str, str] = Field(description="the libraries that made the contract")
    no_contract: str = Field(description="why there is no contract; empty when there is one")


class InputInfo(BaseModel):
    artifact: str
    commit: str


class ArtifactInfo(BaseModel):
    artifact: str
    kind: str
    name: str
    version: str
    commit: str
    tree: str
    source: str
    run: str
    inputs: list[InputInfo]
    stage: str
    params: dict[str, Any]
    seed: int
    code: str
    environment: dict[str, str]
    action_key: str
    counts: dict[str, int]
    metrics: dict[str, Any]
    files: int
    size: int


class Irregular(BaseModel):
    """A ref that breaks the rules, and that lists leave out."""

    ref: str
    why: str
    fix: str = Field(description="a command that removes it")


class ArtifactList(BaseModel):
    artifacts: list[str]
    passed_over: list[Irregular] = Field(description="tags that are no artifact and no version")


class Lineage(BaseModel):
    artifact: str
    made_from: list[ArtifactInfo]
    not_here: list[InputInfo] = Field(description="ancestors that are named, and that this repository does not hold")


class Move(BaseModel):
    ref: str
    old: str
    new: str


class LedgerEntry(BaseModel):
    counter: int
    action: str
    who: str
    why: str
    time_ms: int
    moves: list[Move]
    evidence: dict[str, Any]
    commit: str


def create_app(repository: Repository, *, hosts: Collection[str] = LOOPBACK) -> FastAPI:
    """The application over one repository. Requests to a host name not in ``hosts`` (DNS rebinding) and of pages of
    other sites are refused."""
    app = FastAPI(
        title="workbench versions",
        version=workbench.__version__,
        description="Read-only: versions, artifacts, lineage, manifests, ledger and runs of one repository.",
        docs_url=None,
        redoc_url=None,
        responses={304: {"description": "the client has it"}, 404: {"model": Problem}, 422: {"model": Problem}},
    )
    app.add_middleware(Guard, hosts=hosts, refuse=_refusal, read_only=True)
    lock = threading.Lock()

    @contextmanager
    def store() -> Iterator[Repository]:
        with lock:
            yield repository

    _errors(app)
    _versions(app, store)
    _artifacts(app, store)
    _objects(app, store)
    _history(app, store)
    return app


Store = Callable[[], Any]


def _get(app: FastAPI, path: str, **options: Any) -> Callable[[Route], Route]:
    """A route for GET and HEAD (the server leaves out the body), described as GET. One route has both, since a 405
    names the methods of the first one that has the path; the second is for the description alone."""

    def register(route: Route) -> Route:
        app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False, **options)(route)
        return app.get(path, **options)(route)

    return register


def _refusal(status: int, message: str, code: str) -> JSONResponse:
    return JSONResponse({"what": message, "hint": "the operations are listed in /openapi.json"}, status)


def _errors(app: FastAPI) -> None:
    from fastapi.exceptions import RequestValidationError

    @app.exception_handler(WorkbenchError)
    def known(_: Request, error: WorkbenchError) -> JSONResponse:
        status = 404 if isinstance(error, NotFound) else 422 if isinstance(error, UserError) else 500
        return JSONResponse({"what": error.what, "hint": error.hint}, status_code=status)

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> JSONResponse:
        problem = {"what": str(error.detail), "hint": "the operations are listed in /openapi.json"}
        return JSONResponse(problem, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        return JSONResponse({"what": wrong, "hint": "see /openapi.json"}, status_code=422)


def _answer(request: Request, value: Any, etag: str, cache: str = REVALIDATE) -> Response:
    """``value`` as JSON, or 304 where the client has it."""
    headers = headers_of(etag, cache)
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    shown = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return JSONResponse(shown, headers=headers)


def _versions(app: FastAPI, store: Store) -> None:
    @_get(app, "/api/v1/versions", response_model=list[VersionInfo])
    def versions(request: Request) -> Response:
        """The agent's versions, newest first."""
        with store() as repository:
            found = describe.versions(repository)
        return _answer(request, found, digest_of([[v["version"], v["commit"], v["active"]] for v in found]))

    @_get(app, "/api/v1/versions/{version}", response_model=VersionDetail)
    def version(
        request: Request, version: Annotated[str, Path(pattern=rf"^(active|v{_NUMBER}\.{_NUMBER}\.{_NUMBER})$")]
    ) -> Response:
        """One version (or ``active``, by its highest tag): its commit, the release it pins, its state and contract.
        Which one is active is told by ``active`` and by the list."""
        with store() as repository:
            commit = lookup.named(repository, version)
            tag = lookup.label(repository, commit) if version == "active" else version
            known = [v for v in describe.versions(repository) if (v["version"], v["commit"]) == (tag, commit)]
            if not known:
                raise NotFound(f"{version} has no version tag", "see /api/v1/versions")
            state = lookup.read_state(repository, commit)
            contract = describe.contract(repository, commit)
        facts = {key: value for key, value in known[0].items() if key != "active"}
        release = state.release.artifact if state.release else ""
        detail = {"release": release, "state": state.model_dump(mode="json"), **contract}
        # Another tag on the same commit changes what ``active`` is called, and a contract is recorded afterwards.
        return _answer(request, facts | detail, digest_of([tag, commit, contract]))


def _artifacts(app: FastAPI, store: Store) -> None:
    @_get(app, "/api/v1/artifacts", response_model=ArtifactList)
    def artifacts(
        request: Request,
        kind: Annotated[Kind | None, Query()] = None,
        name: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        """Short tags of all artifacts, by kind, name and version."""
        with store() as repository:
            found = [tag.short for tag in repository.artifacts.list(kind, name)]
            over = [each.to_json() for each in passed_over.tags(repository)]
        return _answer(request, {"artifacts": found, "passed_over": over}, digest_of([found, over]))

    def get(kind: Kind, name: str, version: str) -> Artifact:
        tag = ArtifactTag.parse(f"{kind}/{name}/{version}")
        with store() as repository:
            artifact: Artifact = repository.artifacts.get(tag)
        return artifact

    @_get(app, "/api/v1/artifacts/{kind}/{name}/{version}", response_model=ArtifactInfo)
    def artifact(request: Request, kind: KindName, name: Name, version: VersionName) -> Response:
        """One artifact: what it is, what it was made from, with which parameters."""
        found = get(kind, name, version)
        return _answer(request, describe.artifact_summary(found), found.commit)

    @_get(app, "/api/v1/artifacts/{kind}/{name}/{version}/manifest", response_model=dict[str, Any])
    def manifest(request: Request, kind: KindName, name: Name, version: VersionName) -> Response:
        """The manifest as it stands in the artifact's tree; its ETag is the tree id."""
        found = get(kind, name, version)
        return from_memory(request, found.manifest.to_bytes(), etag=found.tree, media_type="application/json")

    @_get(app, "/api/v1/artifacts/{kind}/{name}/{version}/lineage", response_model=Lineage)
    def lineage(request: Request, kind: KindName, name: Name, version: VersionName) -> Response:
        """Everything the artifact was made from, nearest first."""
        found = get(kind, name, version)
        with store() as repository:
            above = list(describe.lineage(repository, found))
        made_from = [describe.artifact_summary(a.artifact) for a in above if a.artifact is not None]
        not_here = [{"artifact": a.tag.short, "commit": a.commit} for a in above if a.artifact is None]
        answer = {"artifact": found.tag.short, "made_from": made_from, "not_here": not_here}
        return _answer(request, answer, digest_of([found.commit, not_here]))

    @_get(app, "/api/v1/artifacts/{kind}/{name}/{version}/files/{path:path}", response_class=Response, responses=_BYTES)
    def file(request: Request, kind: KindName, name: Name, version: VersionName, path: str) -> Response:
        """One payload file, checked against its manifest; parts of it by a single Range. Its ETag is the id of its
        object in the artifact's tree: a blob, or a tree of blobs."""
        found = get(kind, name, version)
        entry = next((f for f in found.manifest.files if f.path == path), None)
        if entry is None:
            raise NotFound(f"{found.tag.short} has no file {path!r}", "its manifest lists the files")
        with store() as repository:
            stored = repository.objects.entry(found.tree, f"payload/{path}")
            if entry.size > IN_MEMORY:
                with repository.cache.lent(found, path) as large:
                    return content(request, large, etag=stored.id)
            data = repository.artifacts.read(found, path)
        return from_memory(request, data, etag=stored.id)


def _objects(app: FastAPI, store: Store) -> None:
    @_get(app, "/api/v1/objects/{id}", response_class=Response, responses=_BYTES)
    def one_object(request: Request, id: Id) -> Response:
        """A commit or tree as JSON, a blob (16 MiB at most) as bytes: by id, so immutable."""
        with store() as repository:
            value = _read_object(repository, ids.object_id(id))
        if isinstance(value, bytes):
            return from_memory(request, value, etag=id, cache=IMMUTABLE)
        return _answer(request, value, id, IMMUTABLE)


def _read_object(repository: Repository, id: ids.ObjectId) -> Any:
    objects = repository.objects
    if not objects.exists(id):
        raise NotFound(f"there is no object {id}", "object ids stand in the manifests, versions and lineage")
    kind = objects.kind(id)
    if kind == "blob":
        if (size := objects.size(id)) > IN_MEMORY:
            raise UserError(f"blob {id} has {size} bytes, {IN_MEMORY} are sent at most", "fetch it with git")
        return objects.read_blob(id)
    if kind == "tree":
        entries = [{"name": e.path, "mode": format(e.mode, "06o"), "id": e.id} for e in objects.list(id)]
        return {"type": "tree", "entries": entries}
    if kind == "tag":
        return {"type": "tag", "target": objects.peel(id)}
    info = objects.commit(id)
    return {
        "type": "commit",
        "tree": info.tree,
        "parents": list(info.parents),
        "message": info.message,
        "author": info.author,
        "time_s": info.time_s,
    }


def _history(app: FastAPI, store: Store) -> None:
    @_get(app, "/api/v1/ledger", response_model=list[LedgerEntry])
    def ledger(
        request: Request,
        limit: Limit = 100,
        before: Annotated[int | None, Query(ge=0, lt=1 << 53, description="a counter: entries below it")] = None,
    ) -> Response:
        """The ledger, newest first: every publication, pin, promotion and undo. Page on with ``before`` the last one's
        counter."""
        with store() as repository:
            head = next(iter(repository.ledger.readable(1)), None)
            newer = 0 if head is None or before is None else max(0, head.counter + 1 - before)
            found = describe.ledger_entries(repository, limit + newer)[newer:]
            top = repository.refs.get(str(refs.LEDGER)) or "none"
        return _answer(request, found, f"{found[0]['commit'] if found else top}-{limit}")

    @_get(app, "/api/v1/runs", response_model=list[dict[str, Any]])
    def runs(
        request: Request,
        limit: Limit = 50,
        before: Annotated[str, Query(pattern="^([0-7][0-9A-HJKMNP-TV-Z]{25})?$", description="an id: older runs")] = "",
    ) -> Response:
        """Run records, newest first; of one that cannot be read, its id and why. Page on with ``before`` the last one's
        id."""
        with store() as repository:
            known = [run for run in repository.runs.list() if not before or run < before][:limit]
            found = [shown for run in known if (shown := _record(repository, run)) is not None]
        return _answer(request, found, digest_of(found))

    @_get(app, "/api/v1/passed-over", response_model=list[Irregular])
    def irregular(request: Request) -> Response:
        """Refs that break the rules, which all lists leave out: versions, artifacts, the ledger, runs."""
        with store() as repository:
            found = [each.to_json() for each in passed_over.everything(repository)]
        return _answer(request, found, digest_of(found))

    @_get(app, "/healthz", response_model=dict[str, str])
    def health() -> dict[str, str]:
        """Alive, and which version of workbench answers."""
        return {"status": "ok", "workbench": workbench.__version__}


def _record(repository: Repository, run: ids.Ulid) -> dict[str, Any] | None:
    try:
        data = repository.runs.read(run, RECORD)
        if data is None:
            return None
        RunRecord.from_bytes(data)
    except Corrupt as error:
        return {"id": run, "unreadable": error.what}
    record: dict[str, Any] = json.loads(data)
    return record
