"""The tools that are served are those of the contract, in both protocol eras: its schemas, its names, its types."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Annotated, Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import Client
from pydantic import BaseModel, Field, computed_field

from workbench.app.template import template_files
from workbench.domain.ids import ObjectId
from workbench.mcp_servers.runner import build_server
from workbench.runner.contract import bare, find_tools
from workbench.runner.version import AgentSnapshot
from workbench.sdk import Completion, tool
from workbench.state.document import StateDocument


class Box(BaseModel):
    """Shown otherwise than it is read."""

    width: Decimal
    wide: Annotated[int, Field(serialization_alias="isWide", validation_alias="wideness")] = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return int(self.width) ** 2


class Tree(BaseModel):
    name: str = "leaf"
    under: list[Tree] = []


@tool()
def box(of: Box) -> Box:
    return of


@tool()
def grow(tree: Tree, depth: float = 1) -> Tree:
    return Tree(name=str(depth), under=[tree])


@tool()
def boxes(numbers: dict[str, tuple[int, Decimal]]) -> dict[str, list[Box]]:
    return {key: [Box(width=value)] for key, (_, value) in numbers.items()}


@tool()
def nothing() -> None:
    """Answer nothing."""


@tool()
def perhaps(text: str | None = None) -> str:
    return "none" if text is None else text


@tool()
def anything(value: Any) -> Any:
    return value


class Echo:
    """Services that say what they were asked."""

    def complete(self, prompt: str, *, max_tokens: int | None, seed: int | None) -> Completion:
        return Completion(text=prompt, finish="end", seed=seed or 0, prompt_tokens=0, completion_tokens=max_tokens or 0)


def snapshot() -> AgentSnapshot:
    """The tools of the template, and those above."""
    template, own = ModuleType("template"), ModuleType(__name__)
    exec(compile(dict(template_files())["agents/runner.py"], "runner.py", "exec"), vars(template))
    vars(own).update({each.__name__: each for each in (box, grow, boxes, nothing, perhaps, anything)})
    return AgentSnapshot("v1.0.0", ObjectId("2" * 40), StateDocument(), find_tools([template, own]))


def talk(mode: str, what: Callable[[Any], Any]) -> None:
    async def connected() -> None:
        async with Client(build_server(snapshot(), Echo()), mode=mode) as client:  # type: ignore[arg-type]
            await what(client)

    anyio.run(connected)


both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


@both_eras
def test_the_schemas_that_are_served_are_those_of_the_contract(mode: str) -> None:
    async def look(client: Any) -> None:
        shown = json.loads((await client.read_resource("version://current")).contents[0].text)["contract"]["tools"]
        served = {each.name: each for each in (await client.list_tools()).tools}
        assert served.keys() == shown.keys()
        for name, ours in snapshot().tools.items():
            assert served[name].input_schema == ours.input_schema
            assert bare(served[name].input_schema) == shown[name]["input"]
            assert shown[name]["input"]["additionalProperties"] is False
            envelope = bare(served[name].output_schema)
            result = envelope["properties"].pop("result")
            assert result | ({"$defs": envelope["$defs"]} if envelope["$defs"] else {}) == shown[name]["output"]
            assert set(envelope["required"]) == {"result", *envelope["properties"]}

    talk(mode, look)


@both_eras
@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("complete", {"prompt": "null", "max_tokens": 3}, {"text": "null", "completion_tokens": 3}),
        ("box", {"of": {"width": 2, "wideness": 1}}, {"width": "2", "isWide": 1, "area": 4}),
        ("grow", {"tree": {"under": [{}]}, "depth": 2}, {"name": "2.0"}),
        ("boxes", {"numbers": {"a": [1, "2.5"]}}, {"a": [{"width": "2.5", "isWide": 0, "area": 4}]}),
        ("nothing", {}, None),
        ("perhaps", {"text": "null"}, "null"),
        ("perhaps", {"text": '["a"]'}, '["a"]'),
        ("anything", {"value": {"self": "3"}}, {"self": "3"}),
    ],
)
def test_what_the_contract_allows_is_answered_as_the_contract_says(
    mode: str, name: str, given: dict[str, Any], result: Any
) -> None:
    async def ask(client: Any) -> None:
        served = {each.name: each for each in (await client.list_tools()).tools}
        Draft202012Validator(served[name].input_schema).validate(given)
        answer = await client.call_tool(name, given)
        assert not answer.is_error, answer.content
        Draft202012Validator(served[name].output_schema).validate(answer.structured_content)
        got = answer.structured_content["result"]
        assert result.items() <= got.items() if isinstance(result, dict) else got == result

    talk(mode, ask)


@both_eras
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prompt": "fn", "max_token": 1}, "there is no 'max_token', did you mean 'max_tokens'?"),
        ({"prompt": "fn", "max_tokens": "3"}, "max_tokens: Input should be a valid integer"),
        ({"prompt": "fn", "max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"prompt": "fn", "max_tokens": 4097}, "max_tokens: Input should be less than"),
        ({"prompt": ["fn"]}, "prompt: Input should be a valid string"),
        ({}, "prompt: Field required"),
    ],
)
def test_what_the_contract_does_not_allow_is_refused_by_name(mode: str, given: dict[str, Any], says: str) -> None:
    async def ask(client: Any) -> None:
        served = {each.name: each for each in (await client.list_tools()).tools}
        assert not Draft202012Validator(served["complete"].input_schema).is_valid(given)
        answer = await client.call_tool("complete", given)
        assert answer.is_error
        assert says in answer.content[0].text

    talk(mode, ask)
