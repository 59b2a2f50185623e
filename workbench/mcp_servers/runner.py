"""The Runner over MCP: the tools of one version, in both protocol eras, over stdio or streamable HTTP.

Every answer carries its provenance: ``{"result": …, "version": …, "release": …, "trace_id": …}`` as structured content.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from opentelemetry import trace
from pydantic import BaseModel, Field

from workbench.domain.errors import WorkbenchError
from workbench.sdk import services as sdk_services

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.runner.contract import Tool
    from workbench.runner.version import AgentSnapshot
    from workbench.sdk.services import Services

T = TypeVar("T")


class Answer(BaseModel, Generic[T]):
    """A tool's result and what produced it."""

    result: T
    version: str = Field(description="the agent's version, or its commit where no version stands")
    release: str = Field(description="the release that the version pins")
    trace_id: str = Field(description="finds this call in the traces")


def build_server(snapshot: AgentSnapshot, services: Services) -> MCPServer[Any]:
    """A server that offers exactly the snapshot's tools."""
    from workbench.telemetry.tracing import ensure_tracing

    ensure_tracing()
    server: MCPServer[Any] = MCPServer(
        "workbench-runner",
        version=snapshot.version,
        instructions=f"Tools of agent version {snapshot.version}, answering with {snapshot.release or 'no release'}.",
    )
    for tool in snapshot.tools.values():
        server.add_tool(
            _traced(tool, snapshot, services),
            name=tool.info.name,
            title=tool.info.title or None,
            description=tool.description,
            annotations=ToolAnnotations(read_only_hint=tool.info.read_only, open_world_hint=False),
            structured_output=True,
        )

    @server.resource("state://active", mime_type="application/json")
    def active_state() -> str:
        """The state that this version answers with."""
        return snapshot.state.to_bytes().decode()

    @server.resource("version://current", mime_type="application/json")
    def current_version() -> str:
        """Version, commit and contract."""
        import json

        return json.dumps(
            {"version": snapshot.version, "commit": snapshot.commit, "contract": snapshot.contract}, sort_keys=True
        )

    return server


def _traced(tool: Tool, snapshot: AgentSnapshot, services: Services) -> Callable[..., Any]:
    """The tool's function, bound to its version, answering with provenance."""

    def call(**arguments: Any) -> Any:
        try:
            with sdk_services.bind(services):
                result = tool.function(**arguments)
        except WorkbenchError as error:
            raise ToolError(str(error)) from error
        context = trace.get_current_span().get_span_context()
        answer = Answer[tool.signature.return_annotation]  # type: ignore[name-defined]
        return answer(
            result=result,
            version=snapshot.version,
            release=snapshot.release,
            trace_id=format(context.trace_id, "032x"),
        )

    functools.update_wrapper(call, tool.function)
    returned: Any = Answer[tool.signature.return_annotation]  # type: ignore[name-defined]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in tool.signature.parameters.values()]
    call.__signature__ = tool.signature.replace(parameters=parameters, return_annotation=returned)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": returned}
    del call.__dict__["__wrapped__"]
    return call
