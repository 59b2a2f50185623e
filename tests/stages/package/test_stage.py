"""S8 package, whole: what a release holds, that its bytes do not depend on workers, and that each gate can fail."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.model_process import model_process_ended
from workbench.app.stage_host import run_in_process
from workbench.domain.errors import Corrupt, NativeCrash, StageFailed, UserError
from workbench.stages.package import gguf_file, licences
from workbench.stages.package.spec import SPEC
from workbench.stages.package.stage import run
from workbench.tokens.tokenizer import Tokenizer

SMALL = {"held_out_texts": 60, "parity_windows": 2, "divergence_windows": 3, "window_tokens": 128}


def package(inputs: dict[str, Path], output: Path, **changes: Any) -> Any:
    workers = changes.pop("workers", 1)
    return run_in_process(
        SPEC, run, inputs=inputs, output=output, params={**SMALL, **changes}, name="tiny", workers=workers
    )


@pytest.fixture(scope="module")
def release(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("release") / "output"
    package(tiny.inputs, output)
    return output


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_release_holds_models_tokenizer_card_licences_gates_and_checksums(release: Path) -> None:
    assert {path.name for path in release.iterdir()} == {
        *(f"tiny-{kind}.gguf" for kind in ("F16", "Q8_0", "Q4_K_M")),
        *("tokenizer.model", "tokenizer.json", "config.json", "metrics.json", "gates.json"),
        *("README.md", "licenses.json", "SHA256SUMS"),
    }


def test_the_same_inputs_give_the_same_bytes_for_any_number_of_workers(
    tiny: Any, release: Path, tmp_path: Path
) -> None:
    package(tiny.inputs, tmp_path / "again", workers=2)
    assert digests(tmp_path / "again") == digests(release)


def test_checksums_cover_every_other_file(release: Path) -> None:
    listed = dict(reversed(line.split("  ")) for line in (release / "SHA256SUMS").read_text().splitlines())
    found = digests(release)
    found.pop("SHA256SUMS")
    assert listed == found


def test_gates_record_what_was_seen_and_how_far_each_quantisation_is(release: Path) -> None:
    seen = json.loads((release / "gates.json").read_bytes())
    assert seen["tokens"]["texts"] >= 60
    assert 0 < seen["logits"]["max_abs_difference"] <= seen["logits"]["tolerance"] == 1e-4
    kl = {kind: row["kl_mean"] for kind, row in seen["divergence"].items()}
    assert 0 <= kl["F16"] < kl["Q8_0"] < kl["Q4_K_M"]
    assert seen["divergence"]["Q8_0"]["argmax_agreement"] > 0.8


def test_licences_name_every_package_and_count_its_documents(release: Path, tiny: Any) -> None:
    told = json.loads((release / "licenses.json").read_bytes())
    assert [(row["name"], row["license"]) for row in told["packages"]] == [
        ("alpha", "MIT"),
        ("beta", "Apache-2.0 OR MIT"),
    ]
    assert sum(row["documents"] for row in told["packages"]) == 300
    assert told["license"] == "(Apache-2.0 OR MIT) AND MIT"


def test_the_card_names_data_metrics_files_and_limits(release: Path) -> None:
    text = (release / "README.md").read_text()
    for part in ("## Use", "## Data and licences", "bits_per_byte | 2.5", "tiny-Q4_K_M.gguf", "## Limits", "fim.exact"):
        assert part in text


def test_no_file_of_a_release_names_a_place_of_this_machine(release: Path, tiny: Any) -> None:
    for path in release.iterdir():
        assert str(tiny.model.parent).encode() not in path.read_bytes()


def test_swapped_rows_of_q_fail_the_logit_gate(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(rows: Any, heads: int) -> Any:
        right = _permute(rows, heads).copy()
        right[[0, 2]] = right[[2, 0]]
        return right

    _permute = gguf_file.permute
    monkeypatch.setattr(gguf_file, "permute", swapped)
    with pytest.raises(StageFailed, match="logits differ from torch's"):
        package(tiny.inputs, tmp_path / "output")


def test_q_rows_left_unpermuted_fail_the_logit_gate(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "permute", lambda rows, heads: rows)
    with pytest.raises(StageFailed, match="logits differ from torch's"):
        package(tiny.inputs, tmp_path / "output")


def test_a_changed_score_fails_the_token_gate(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = gguf_file.gguf.GGUFWriter.add_token_scores
    tokenizer = Tokenizer.load(tiny.tokenizer)
    late = -float([tokenizer.piece(id) for id in range(272, 416)].index("lu"))  # never merged first in "value"

    def changed(writer: Any, scores: list[float]) -> None:
        write(writer, [1.0 if score == late else score for score in scores])

    monkeypatch.setattr(gguf_file.gguf.GGUFWriter, "add_token_scores", changed)
    with pytest.raises(StageFailed, match="tokenizer differs from SentencePiece's"):
        package(tiny.inputs, tmp_path / "output")


def test_control_tokens_exported_as_ordinary_ones_fail_the_token_gate(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf_file.gguf.GGUFWriter.add_token_types

    def changed(writer: Any, types: list[int]) -> None:
        write(writer, [4 if kind == 3 else kind for kind in types])

    monkeypatch.setattr(gguf_file.gguf.GGUFWriter, "add_token_types", changed)
    with pytest.raises(StageFailed, match=r"tokenizer differs|became a control token"):
        package(tiny.inputs, tmp_path / "output")


def test_a_package_without_a_licence_fails_the_stage(tiny: Any, tmp_path: Path) -> None:
    dataset = shutil.copytree(tiny.dataset, tmp_path / "dataset")
    for path in dataset.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"license": "MIT"', '"license": ""'))
    with pytest.raises(StageFailed, match="alpha is in the dataset without a licence"):
        package({**tiny.inputs, "dataset": dataset}, tmp_path / "output")


def test_files_under_another_licence_than_their_package_s_are_told(tiny: Any, tmp_path: Path) -> None:
    dataset = shutil.copytree(tiny.dataset, tmp_path / "dataset")
    path = dataset / "test.jsonl"
    path.write_text(path.read_text().replace('"license": "MIT"', '"license": "BSD-2-Clause"'))
    told = {share.name: share.license for share in licences.read(dataset)}
    assert told == {"alpha": "BSD-2-Clause AND MIT", "beta": "Apache-2.0 OR MIT"}


def test_a_missing_weight_is_named(tiny: Any, tmp_path: Path) -> None:
    model = shutil.copytree(tiny.model, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(Corrupt, match=r"model\.norm\.weight"):
        package({**tiny.inputs, "model": model}, tmp_path / "output")


def test_weights_that_are_not_numbers_fail_the_stage(tiny: Any, tmp_path: Path) -> None:
    model = shutil.copytree(tiny.model, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(StageFailed, match=r"model\.norm\.weight holds values that are not numbers"):
        package({**tiny.inputs, "model": model}, tmp_path / "output")


def test_sizes_that_would_fall_back_are_refused_before_anything_is_written(tiny: Any, tmp_path: Path) -> None:
    model = shutil.copytree(tiny.model, tmp_path / "model")
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 640}))
    with pytest.raises(StageFailed, match="multiples of 256"):
        package({**tiny.inputs, "model": model}, tmp_path / "output")
    assert list((tmp_path / "output").iterdir()) == []


def test_a_tokenizer_of_another_size_is_refused(tiny: Any, tmp_path: Path) -> None:
    model = shutil.copytree(tiny.model, tmp_path / "model")
    config = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
    with pytest.raises(StageFailed, match="500 tokens, the tokenizer 416"):
        package({**tiny.inputs, "model": model}, tmp_path / "output")


@pytest.mark.parametrize(
    "given",
    [
        {"quantisation": ["Q8_0"]},
        {"quantisations": "Q8_0"},
        {"quantisations": ["Q9"]},
        {"quantisations": []},
        {"parity_windows": 0},
        {"window_tokens": 3},
        {"held_out_texts": True},
    ],
)
def test_wrong_parameters_are_refused_with_what_to_do(given: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        SPEC.resolve(1, given)
    assert caught.value.hint


def test_a_crash_of_llama_cpp_is_the_stage_s_error_and_nothing_half_is_left(tiny: Any, tmp_path: Path) -> None:
    with model_process_ended() as ended, pytest.raises(NativeCrash) as caught:
        package(tiny.inputs, tmp_path / "output")
    assert ended
    assert (caught.value.crashed, caught.value.ended) == ("llama.cpp in quantise", "SIGSEGV")
    assert caught.value.given == "tiny-F16.gguf to Q8_0"
    assert not list((tmp_path / "output").glob("*.partial"))
