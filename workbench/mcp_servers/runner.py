"""The Runner over MCP: the tools of one version, in both protocol eras, over stdio or streamable HTTP.

Every answer carries its provenance: ``{"result": …, "version": …, "release": …, "trace_id": …}`` as structured content.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool as ServedTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from opentelemetry import trace
from pydantic import BaseModel, Field

from workbench.domain.errors import NativeCrash, WorkbenchError
from workbench.mcp_servers.calls import Calls
from workbench.runner import arguments
from workbench.sdk import services as sdk_services

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.applications import Starlette

    from workbench.ports.call import Call
    from workbench.runner.contract import Tool
    from workbench.runner.version import AgentSnapshot
    from workbench.sdk.services import Services

T = TypeVar("T")
MAX_ANSWER = 4 << 20  # bytes of JSON: as much as a request may have, and far more than an agent can read
_CONTEXT = "mcp context"  # no argument of a tool is called so
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # addresses to listen on, and the names of no machine


class Answer(BaseModel, Generic[T]):
    """A tool's result and what produced it."""

    result: T
    version: str = Field(description="the agent's version, or its commit where no version stands")
    release: str = Field(description="the release that the version pins")
    trace_id: str = Field(description="finds this call in the traces")


class _AsGiven(FuncMetadata):
    """Arguments reach the tool as they came: the SDK's own reading takes more than the contract (``"3"`` for a number,
    names that do not exist) and turns text that looks like JSON into values."""

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        return arguments_to_validate


def build_server(snapshot: AgentSnapshot, services: Services) -> MCPServer[Any]:
    """A server that offers exactly the snapshot's tools."""
    from workbench.telemetry.tracing import ensure_tracing

    ensure_tracing()
    calls = Calls()
    server: MCPServer[Any] = MCPServer(
        "workbench-runner",
        version=snapshot.version,
        instructions=f"Tools of agent version {snapshot.version}, answering with {snapshot.release or 'no release'}.",
        tools=[_served(tool, _traced(tool, snapshot, services, calls)) for tool in snapshot.tools.values()],
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


def http_app(server: MCPServer[Any], host: str) -> Starlette:
    """Streamable HTTP at ``/mcp`` for a server that listens on ``host``. Requests under another host's name (DNS
    rebinding) and of other sites' pages are refused, on whatever address it listens."""
    names = sorted(_LOOPBACK | ({host.lower()} - _EVERYWHERE))
    known = [f"[{name}]" if ":" in name else name for name in names]
    allowed = TransportSecuritySettings(
        allowed_hosts=[f"{name}:*" for name in known], allowed_origins=[f"http://{name}:*" for name in known]
    )
    return server.streamable_http_app(transport_security=allowed)


def _served(tool: Tool, call: Callable[..., Any]) -> ServedTool:
    """The tool under the very schemas of its contract; the answer's is that of ``Answer`` around the result's."""
    output: Any = Answer[tool.signature.return_annotation]  # type: ignore[name-defined]
    result = dict(tool.output_schema)
    schema = Answer[Any].model_json_schema() | {"title": output.__name__, "$defs": result.pop("$defs", {})}
    schema["properties"]["result"] = result
    return ServedTool(
        fn=call,
        name=tool.info.name,
        title=tool.info.title or None,
        description=tool.description,
        parameters=dict(tool.input_schema),
        fn_metadata=_AsGiven(arg_model=ArgModelBase, output_model=output, output_schema=schema),
        is_async=True,
        context_kwarg=_CONTEXT,
        annotations=ToolAnnotations(read_only_hint=tool.info.read_only, open_world_hint=False),
    )


def _traced(tool: Tool, snapshot: AgentSnapshot, services: Services, calls: Calls) -> Callable[..., Any]:
    """The tool's function, bound to its version, answering with provenance."""

    def work(given: dict[str, Any], asked: Call) -> Any:
        with sdk_services.bind(services, asked):
            return tool.function(**arguments.read(tool, given))

    async def call(**given: Any) -> Any:
        client = _client(given.pop(_CONTEXT).headers or {})
        try:
            result = await calls.run(functools.partial(work, given), client)
        except WorkbenchError as error:
            if isinstance(error, NativeCrash):
                print(error, file=sys.stderr)  # with its log, which names places of this machine
            raise ToolError("\n  ".join(filter(None, (error.what, error.hint)))) from error
        context = trace.get_current_span().get_span_context()
        answer = Answer[tool.signature.return_annotation](  # type: ignore[name-defined]
            result=result,
            version=snapshot.version,
            release=snapshot.release,
            trace_id=format(context.trace_id, "032x"),
        )
        size = len(answer.model_dump_json().encode())
        if size > MAX_ANSWER:
            raise ToolError(f"the answer has {size} bytes, {MAX_ANSWER} are sent at most: ask for less")
        return answer

    return call


def _client(headers: Mapping[str, str]) -> str:
    """Who asks, as far as a request tells: the model's queue takes clients in turn. Over stdio there is one."""
    return "\n".join(headers.get(name, "") for name in ("authorization", "user-agent", "mcp-session-id"))
