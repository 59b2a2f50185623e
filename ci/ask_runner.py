"""Asks one tool of the Runner through a real MCP client, over standard input and output, and prints the answer.

usage: ask_runner.py --tool NAME key=value ...      (in a workspace; values are JSON where they parse as JSON)
"""

from __future__ import annotations

import json
import sys

import anyio
from mcp import Client, StdioServerParameters


async def ask(tool: str, arguments: dict[str, object]) -> int:
    server = StdioServerParameters(command=sys.executable, args=["-m", "workbench.cli.entry", "mcp", "runner"])
    async with Client(server) as client:
        print(f"MCP {client.protocol_version}, tools: {', '.join(t.name for t in (await client.list_tools()).tools)}")
        answer = await client.call_tool(tool, arguments)
    if answer.is_error or answer.structured_content is None:
        print(answer.content)
        return 1
    print(json.dumps(answer.structured_content, indent=1, ensure_ascii=False))
    return 0


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1] != "--tool":
        sys.stderr.write(__doc__ or "")
        return 2
    arguments: dict[str, object] = {}
    for pair in sys.argv[3:]:
        key, _, value = pair.partition("=")
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
    return anyio.run(ask, sys.argv[2], arguments)


if __name__ == "__main__":
    sys.exit(main())
