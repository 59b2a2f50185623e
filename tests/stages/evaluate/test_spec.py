"""Parameters: the dial sets them, each can be given, a wrong one is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workbench.domain.errors import ToolMissing, UserError
from workbench.stages.evaluate.spec import SPEC


def test_the_dial_sets_how_much_is_measured():
    steps = [SPEC.resolve(dial, {}) for dial in range(6)]
    for name in ("likelihood_bytes", "line_tasks", "compile_tasks", "samples"):
        values = [step[name] for step in steps]
        assert values == sorted(values)
    assert SPEC.resolve(1, {"samples": 7})["samples"] == 7


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"smaples": 3}, "samples"),
        ({"samples": 0}, "samples"),
        ({"temperature": 0.0}, "temperature"),
        ({"compile": "maybe"}, "compile"),
        ({"split": "train"}, "split"),
        ({"confidence": float("nan")}, "confidence"),
    ],
)
def test_a_wrong_parameter_is_named(given, said: str):
    with pytest.raises(UserError, match=said):
        SPEC.resolve(1, given)


def test_a_negative_dial_is_refused():
    with pytest.raises(UserError, match="dial"):
        SPEC.resolve(-1, {})


def test_the_spec_is_cheap_to_import():
    code = "import sys, workbench.stages.evaluate.spec as s; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_compiler_that_cannot_be_used_is_told_before_or_ends_it_before_or_matters_not() -> None:
    params = SPEC.resolve(1, {})
    assert SPEC.without is not None
    assert SPEC.without(params, "rustc", "it hangs") == "nothing is compiled: rustc cannot be used: it hangs"
    assert SPEC.without({**params, "compile": "skip"}, "rustc", "it hangs") == ""
    assert SPEC.without({**params, "compile_tasks": 0}, "rustc", "it hangs") == ""
    with pytest.raises(ToolMissing, match="rustc cannot be used: it hangs"):
        SPEC.without({**params, "compile": "require"}, "rustc", "it hangs")
