"""S9 serve over a real file: what it counts, and that it fails where a replay differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.model_process import model_process_ended
from workbench.app.stage_host import run_in_process
from workbench.domain.errors import Corrupt, NativeCrash, NotFound, StageFailed, UserError
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.stages.serve import stage
from workbench.stages.serve.spec import SPEC


def serve(release: Path, output: Path, seed: int = 3, **params: Any) -> Any:
    return run_in_process(SPEC, stage.run, inputs={"release": release}, output=output, params=params, seed=seed)


def test_a_release_answers_and_repeats_itself(tiny: Any, tmp_path: Path) -> None:
    result = serve(tiny.q8.parent, tmp_path / "one")
    assert result.counts["generations"] == result.counts["replayed"] == 3
    assert result.counts["tokens"] > 0
    assert serve(tiny.q8.parent, tmp_path / "two") == result
    assert list((tmp_path / "one").iterdir()) == []


def test_another_seed_gives_other_text(tiny: Any, tmp_path: Path) -> None:
    first = serve(tiny.q8.parent, tmp_path / "a", temperature=2.0)
    other = serve(tiny.q8.parent, tmp_path / "b", temperature=2.0, seed=4)
    assert first.metrics["completion_sha256"] != other.metrics["completion_sha256"]


def test_a_missing_quantisation_is_named_with_those_that_there_are(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no Q5_K_M file(.|\n)*tiny-Q8_0\.gguf"):
        serve(tiny.q8.parent, tmp_path / "output", quantisation="Q5_K_M")


def test_a_damaged_file_is_refused(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "tiny-Q8_0.gguf").write_bytes(tiny.q8.read_bytes()[:-1000])
    with pytest.raises(Corrupt, match="after the end of the file"):
        serve(folder, tmp_path / "output")


def test_a_crash_of_llama_cpp_is_the_stage_s_error(tiny: Any, tmp_path: Path) -> None:
    with model_process_ended(), pytest.raises(NativeCrash, match=r"SIGSEGV\) on tiny-Q8_0.gguf"):
        serve(tiny.q8.parent, tmp_path / "output")


class Forgetful:
    """A model that answers differently each time it is asked."""

    context = 64

    def __init__(self) -> None:
        self.calls = 0

    def load(self, gguf: Path, **_: Any) -> Forgetful:
        return self

    def generate(self, prompt: Prompt, sampling: Sampling, on_text: Any = None) -> Generation:
        text = f"answer {self.calls}"
        if on_text:
            on_text(text)
        return Generation(text, (self.calls,), "length", (1,), sampling, "0" * 64)

    def replay(self, record: Generation) -> Generation:
        return replace(record, text="something else")

    def close(self) -> None:
        self.calls += 1


def test_an_answer_that_cannot_be_repeated_fails_the_stage(tiny: Any, tmp_path: Path) -> None:
    class Context:
        inputs = {"release": tiny.q8.parent}
        params = SPEC.resolve(1, {})
        models = Forgetful()
        seed, workers = 1, 1

    with pytest.raises(StageFailed, match="cannot be repeated"):
        stage.run(Context())  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"promt": "x"}, {"prompt": 3}, {"max_tokens": 0}, {"temperature": -1}])
def test_wrong_parameters_are_refused_with_what_to_do(given: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        SPEC.resolve(1, given)
    assert caught.value.hint
