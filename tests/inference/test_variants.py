"""Every CPU variant of llama.cpp that this processor can run opens every kind of file, and they agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.domain.errors import UserError
from workbench.inference.process import ProcessLoader
from workbench.inference.variants import NATIVE, VARIABLE, choose, chosen, libraries, scores

# How far two variants may be apart, as they round activations differently: root of mean squares, against the logits'.
KINDS = {"F16": 0.002, "Q8_0": 0.03, "Q4_K_M": 0.05}
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from workbench.domain.generation import Prompt, Sampling
from workbench.inference.process import ProcessLoader

folder, out = Path(sys.argv[1]), {}
for kind in sys.argv[2:]:
    with ProcessLoader().load(folder / f"{kind}.gguf", threads=2) as model:
        made = model.generate(Prompt("let value = "), Sampling(max_tokens=1))
        logits = model.logits(model.tokenize("let value = buffer.index(7);" * 8))
    out[kind] = {"variant": made.engine["variant"], "tokens": made.tokens, "logits": logits.tolist()}
json.dump(out, sys.stdout)
"""


@pytest.fixture(scope="module")
def files(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    os.link(tiny.f16, folder / "F16.gguf")
    for kind in ("Q8_0", "Q4_K_M"):
        ProcessLoader().quantise(tiny.f16, folder / f"{kind}.gguf", kind)
    return folder


@pytest.fixture(scope="module")
def ours(files: Path) -> Any:
    return answers(files, "")


def answers(files: Path, variant: str) -> Any:
    command = [sys.executable, "-c", PROGRAM, str(files), *KINDS]
    done = subprocess.run(command, env={**os.environ, VARIABLE: variant}, capture_output=True, text=True)
    assert done.returncode == 0, f"{variant} ended with {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("variant", sorted(scores(libraries())))
def test_a_variant_opens_every_kind_of_file_and_agrees_with_the_best(files: Path, ours: Any, variant: str) -> None:
    if not scores(libraries())[variant]:
        pytest.skip(f"this processor cannot run {variant}")
    found = answers(files, variant)
    for kind, apart in KINDS.items():
        assert found[kind]["variant"] == variant
        assert found[kind]["tokens"] == ours[kind]["tokens"]
        expected = np.array(ours[kind]["logits"])
        assert rms(np.array(found[kind]["logits"]) - expected) < apart * rms(expected), kind


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_without_a_wish_the_best_is_taken_and_the_record_tells_it(ours: Any) -> None:
    known = scores(libraries())
    assert known[chosen().name] == max(known.values())
    assert ours["F16"]["variant"] == choose(libraries()).name


def test_a_variant_that_is_not_there_is_refused_and_those_that_run_here_are_named() -> None:
    with pytest.raises(UserError, match=f"{VARIABLE}=z80 cannot be used: llama.cpp was built without it") as refused:
        choose(libraries(), "z80")
    assert choose(libraries()).name in refused.value.hint


def test_a_library_that_was_built_for_one_machine_has_one_variant(tmp_path: Path) -> None:
    assert (choose(tmp_path).name, choose(tmp_path).library) == (NATIVE, None)


def test_who_only_wants_the_name_is_told_it_by_a_process_of_its_own() -> None:
    for variant in (name for name, score in scores(libraries()).items() if score):
        command = [sys.executable, "-m", "workbench.inference.variants"]
        done = subprocess.run(command, env={**os.environ, VARIABLE: variant}, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"{variant}\n")
