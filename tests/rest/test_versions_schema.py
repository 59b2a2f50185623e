"""The Versions API answers as its own OpenAPI document says, asked for anything and for what is there."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.domain.refs import Kind
from workbench.rest.versions import create_app
from workbench.store.git.repository import GitRepository

QUIET = settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def operations(repository: GitRepository) -> list[Any]:
    app = create_app(repository, hosts={"localhost", "testserver"})
    found = [each.ok() for each in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()]
    assert len(found) >= 10
    return found


def what_is_there(repository: GitRepository) -> dict[str, list[dict[str, str]]]:
    """Path parameters that lead to something, by a piece of the path; the first that fits is taken."""
    named = [
        {"kind": str(tag.kind), "name": tag.name, "version": str(tag.version)} for tag in repository.artifacts.list()
    ]
    release = repository.artifacts.get(repository.artifacts.list(Kind.RELEASE)[0])
    tag = repository.refs.get("refs/tags/v1.0.0")
    blob = repository.objects.entry(release.tree, "manifest.json")
    assert tag is not None
    assert blob is not None
    return {
        "/versions/{version}": [{"version": "v1.0.0"}, {"version": "active"}],
        "/files/{path}": [{**each, "path": "file.txt"} for each in named],
        "/artifacts/{kind}/{name}/{version}": named,
        "/objects/{id}": [{"id": id} for id in (tag, release.commit, release.tree, blob.id)],
    }


def test_every_operation_keeps_to_the_schema(repository: GitRepository) -> None:
    for operation in operations(repository):

        @given(case=operation.as_strategy())
        @QUIET
        def keeps_to_it(case: schemathesis.Case) -> None:
            case.call_and_validate()

        keeps_to_it()


def test_every_operation_keeps_to_the_schema_when_it_is_asked_for_what_is_there(repository: GitRepository) -> None:
    there = what_is_there(repository)
    for operation in operations(repository):
        known = next((found for piece, found in there.items() if piece in operation.path), [{}])
        assert known != [{}] or "{" not in operation.path, f"{operation.path}: name something that is there"

        @given(case=operation.as_strategy(), parts=st.sampled_from(known))
        @QUIET
        def keeps_to_it(case: schemathesis.Case, parts: dict[str, str], statuses: set[int]) -> None:
            case.path_parameters = parts
            statuses.add(case.call_and_validate().status_code)

        statuses = set[int]()
        keeps_to_it(statuses=statuses)
        assert 200 in statuses, operation.path
        assert not statuses & {404, 500}, operation.path
