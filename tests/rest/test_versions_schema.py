"""The Versions API answers as its own OpenAPI document says, whatever it is asked."""

from __future__ import annotations

from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, given, settings

from workbench.rest.versions import create_app
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub


def test_every_operation_keeps_to_the_schema(tmp_path: Path) -> None:
    init_hub(tmp_path / "hub.git")
    with GitRepository(tmp_path / "hub.git") as repository:
        schema = schemathesis.openapi.from_asgi(
            "/openapi.json", create_app(repository, hosts={"localhost", "testserver"})
        )
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) >= 10
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def keeps_to_it(case: schemathesis.Case) -> None:
                case.call_and_validate()

            keeps_to_it()
