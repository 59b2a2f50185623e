"""Commands that make answers: pin, contract, complete, serve, mcp, versions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from workbench.cli.context import Json, Repo, Why, filled, identity, main_is_checked_out, store
from workbench.cli.locate import locate
from workbench.cli.output import emit, emit_json, emit_made, table

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one and prints it.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; loopback unless you say otherwise.")]


def pin(
    release: Annotated[str, typer.Argument(help="release/NAME/vX.Y.Z, or release/NAME for the newest.")],
    why: Why = "",
    bump: Annotated[str, typer.Option("--bump", help="At least this: major, minor or patch.")] = "patch",
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Make a release what the agent answers with: active state, version tag and channel in one ledger entry.

    Example: [bold]workbench pin release/rust --why "better at FIM"[/bold]
    """
    from workbench.app.agents import pin_release
    from workbench.domain.errors import UserError
    from workbench.domain.version import Bump
    from workbench.versions.describe import find_artifact

    if bump not in set(Bump):
        raise UserError(f"not a bump: {bump!r}", "one of major, minor, patch")
    with store(repo) as repository:
        artifact = find_artifact(repository, release)
        made = pin_release(repository, artifact, who=identity(repo), why=why, at_least=Bump(bump))
    if json:
        emit_json(
            {
                "version": str(made.version),
                "commit": made.commit,
                "release": made.release,
                "bump": made.bump,
                "reasons": list(made.reasons),
                "entry": made.entry,
            }
        )
        return
    emit(f"{made.version}  {made.commit[:12]}  active, pins {made.release}")
    emit(f"why: {'; '.join(made.reasons)} (ledger entry {made.entry}; `workbench undo` takes it back)")
    location = locate(repo)
    if location.remote:
        emit(f"next:  git pull {location.remote} main     main has a new commit there")
    elif main_is_checked_out(location):
        emit("next:  git restore --staged --worktree state     main has moved on under your work tree")


def contract(
    rev: Annotated[str, typer.Argument(help="vX.Y.Z, a channel, a branch or a commit.")] = "refs/heads/main",
    again: Annotated[bool, typer.Option("--again", help="Compute it once more, also where it is recorded.")] = False,
    repo: Repo = "",
    json: Json = False,
) -> None:
    """What the tools of a commit promise: recorded once, computed in the sandbox where it is not recorded yet.

    Ends with 1 where there is no contract, and says why.

    Example: [bold]workbench contract v1.0.0[/bold]
    """
    from workbench.app.contracts import contract_of

    with store(repo) as repository:
        commit = repository.resolve(rev)
        record = contract_of(repository, commit, again=again)
    made_by = dict(record.made_by)
    if json:
        told = {"commit": commit, "agents": record.tree, "made_by": made_by}
        emit_json(told | {"contract": record.contract, "no_contract": record.why})
    elif record.contract is None:
        emit(f"{commit[:12]} has no contract: {record.why}")
    else:
        tools = record.contract["tools"]
        rows = [
            (name, ", ".join(sorted(tool["input"].get("properties", {}))), _kind(tool["output"]))
            for name, tool in tools.items()
        ]
        table(("tool", "takes", "answers"), rows)
        makers = ", ".join(f"{name} {version[:12]}" for name, version in sorted(made_by.items()))
        emit(f"\n{commit[:12]}, made by {makers}")
    if record.contract is None:
        raise typer.Exit(1)


def _kind(schema: Mapping[str, Any]) -> str:
    """What a tool answers, in a word or a few."""
    found = schema.get("properties") or schema.get("type") or "anything"
    return found if isinstance(found, str) else ", ".join(sorted(found))


def complete(
    ref: Annotated[str, typer.Argument(help="A release: release/NAME or release/NAME/vX.Y.Z.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Text to go on with; '-' reads standard input.")
    ] = None,
    suffix: Annotated[str | None, typer.Option("--suffix", help="Text that follows: fill-in-the-middle.")] = None,
    quantisation: Annotated[str, typer.Option("--quantisation", "-q", help="F16, Q8_0 or Q4_K_M.")] = "Q8_0",
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=1)] = 64,
    temperature: Annotated[float, typer.Option("--temperature", min=0)] = 0.0,
    top_k: Annotated[int, typer.Option("--top-k", min=0)] = 40,
    top_p: Annotated[float, typer.Option("--top-p")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End at this text; may be given again.")] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print as it is generated.")] = True,
    replay: Annotated[
        str,
        typer.Option(
            "--replay", metavar="FILE", help="Repeat what --json or a server's answer recorded; '-' reads it."
        ),
    ] = "",
    repo: Repo = "",
    json: Json = False,
) -> None:
    """Complete a prompt, or fill in the middle, with a release straight from its ref; offline, seeded, replayable.

    With --replay a recorded generation is made once more, from its record alone, and compared.

    Example: [bold]workbench complete release/rust -p 'fn main() {' --suffix '}'[/bold]
    """
    from workbench.app.agents import open_release, repeat
    from workbench.domain.errors import UserError
    from workbench.domain.generation import Generation, Prompt, Sampling
    from workbench.versions.describe import find_artifact

    if (prompt is None) == (not replay):
        raise UserError("complete needs a prompt, or a record to repeat", "give one of --prompt TEXT and --replay FILE")
    record = Generation.from_bytes(_file_or_standard_input(replay)) if replay else None
    text = _standard_input() if prompt == "-" else prompt or ""
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
    )
    with store(repo) as repository:
        artifact = find_artifact(repository, ref)
        model = open_release(repository, artifact, quantisation)
        try:
            show = None if json or not stream or record else emit_made
            made = repeat(model, record) if record else model.generate(Prompt(text, suffix), sampling, show)
        finally:
            model.close()
    if json:
        emit_json({"release": artifact.tag.short, "tree": artifact.tree, **made.to_json()})
    elif stream and not record:
        emit()
    else:
        emit_made(made.text, "\n")


def _standard_input() -> str:
    from workbench.domain.errors import UserError

    try:
        return sys.stdin.buffer.read().decode("utf-8") if sys.stdin else ""
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is not UTF-8 text ({error.reason})", "convert it first: iconv -t UTF-8"
        ) from None


def _file_or_standard_input(name: str) -> bytes:
    from pathlib import Path

    from workbench.domain.errors import NotFound, UserError

    if name == "-":
        return sys.stdin.buffer.read() if sys.stdin else b""
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no such file: {name}", "write one with: workbench complete … --json") from None
    except OSError as error:
        raise UserError(
            f"{name} cannot be read: {error.strerror}", "give a file that `workbench complete --json` wrote"
        ) from None


def serve(
    ref: Annotated[str, typer.Argument(help="A release: release/NAME or release/NAME/vX.Y.Z.")],
    port: Port = 8080,
    host: Host = "127.0.0.1",
    quantisation: Annotated[str, typer.Option("--quantisation", "-q")] = "Q8_0",
    repo: Repo = "",
) -> None:
    """Serve one release over OpenAI-compatible HTTP: /v1/models, /v1/completions with suffix for FIM, streaming.

    Example: [bold]workbench serve release/rust --port 8080[/bold]
    """
    from workbench.app.agents import open_release
    from workbench.rest.openai import serve as serve_openai
    from workbench.versions.describe import find_artifact

    with store(repo) as repository:
        artifact = find_artifact(repository, ref)
        model = open_release(repository, artifact, quantisation)
        try:
            serve_openai(model, artifact.tag.short, host=host, port=port)
        finally:
            model.close()


mcp = typer.Typer(no_args_is_help=True, help="MCP servers.", rich_markup_mode="rich")


@mcp.callback()
def _mcp() -> None:
    """MCP servers: what an editor or another agent calls."""


@mcp.command()
def runner(
    version: Annotated[
        str, typer.Option("--version", callback=filled, help="vX.Y.Z, or a channel (default: active).")
    ] = "",
    commit: Annotated[str, typer.Option("--commit", callback=filled, help="Any commit instead: a branch, an id.")] = "",
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP instead of standard input and output.")] = False,
    port: Port = 8765,
    host: Host = "127.0.0.1",
    repo: Repo = "",
) -> None:
    """The Runner: tools of one version, straight from its commit, under its state, with its release.

    Example: [bold]workbench mcp runner --version v1.0.0[/bold]
    """
    from workbench.app.agents import serve_version
    from workbench.domain.errors import UserError
    from workbench.mcp_servers.runner import build_server, http_app

    if version and commit:
        raise UserError("--version and --commit exclude each other", "give one of the two")
    with store(repo) as repository:
        snapshot, services = serve_version(repository, version or "active", commit=commit)
        try:
            server = build_server(snapshot, services)
            if http:
                from workbench.rest.listening import address, listen, serve_on

                listener = listen(host, port)
                app = http_app(server, host)
                said = f"runner {snapshot.version} on {address(listener, host)}/mcp"
                serve_on(listener, app, said, out=sys.stdout)
            else:
                server.run("stdio")
        finally:
            services.close()


def versions(port: Port = 8770, host: Host = "127.0.0.1", repo: Repo = "") -> None:
    """The Versions API: read-only REST for versions, artifacts, lineage and manifests; OpenAPI at /openapi.json.

    Example: [bold]workbench versions --port 8770[/bold]
    """
    from workbench.rest.guard import names
    from workbench.rest.listening import address, listen, serve_on
    from workbench.rest.versions import create_app

    with store(repo) as repository:
        listener = listen(host, port)
        app = create_app(repository, hosts=names(host))
        said = f"versions API on {address(listener, host)}/api/v1/versions  (OpenAPI: /openapi.json)"
        serve_on(listener, app, said, out=sys.stdout)


def register(app: typer.Typer) -> None:
    app.command()(pin)
    app.command()(contract)
    app.command()(complete)
    app.command()(serve)
    app.add_typer(mcp, name="mcp")
    app.command()(versions)
