"""What S9 serve reads and is told. It makes nothing. Importing it is cheap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.domain.errors import UserError
from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

DEFAULTS: Params = {
    "quantisation": "Q8_0",
    "prompt": "pub fn new(",
    "prefix": "fn add(a: u32, b: u32) -> u32 {\n    ",
    "suffix": "\n}\n",
    "max_tokens": 48,
    "temperature": 0.8,
}
SHORTEST_PROMPT = 16  # tokens


def resolve(dial: int, given: Params) -> dict[str, Any]:
    """All parameters; the dial changes none of them."""
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise UserError(
            f"serve has no parameter {', '.join(unknown)}", f"its parameters are {', '.join(sorted(DEFAULTS))}"
        )
    params = {**DEFAULTS, **given}
    for name in ("quantisation", "prompt", "prefix", "suffix"):
        if not isinstance(params[name], str):
            raise UserError(f"serve's {name} is {params[name]!r}", "give a text")
    tokens, temperature = params["max_tokens"], params["temperature"]
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 1 <= tokens <= 1024:
        raise UserError(f"serve's max_tokens is {tokens!r}", "give a whole number from 1 to 1024")
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 <= temperature <= 10:
        raise UserError(f"serve's temperature is {temperature!r}", "give a number from 0 to 10")
    return params


def fits(params: Mapping[str, Params]) -> None:
    """The release has the file that is opened, and the model room for an answer."""
    own = params["serve"]
    if "package" in params:
        made = ["F16", *params["package"]["quantisations"]]
        if own["quantisation"] not in made:
            raise UserError(
                f"quantisation {own['quantisation']!r} is not in the release", f"package makes {', '.join(made)}"
            )
    if "shard" in params and params["shard"]["context"] <= own["max_tokens"] + SHORTEST_PROMPT:
        raise UserError(
            f"a context of {params['shard']['context']} tokens has no room for {own['max_tokens']} more",
            "lower serve's max_tokens, or raise shard's context",
        )


SPEC = StageSpec(
    name="serve",
    reads=(Kind.RELEASE,),
    makes=None,
    resolve=resolve,
    libraries=("llama-cpp-python", "numpy"),
    llama=True,
    adapters=("inference",),
    fits=fits,
)
