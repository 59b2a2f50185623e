"""Quantisation: the same bytes whatever the threads, and never another type than was asked for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workbench.domain.errors import Corrupt, StageFailed, UserError
from workbench.inference.gguf_header import read_header
from workbench.inference.quantise import RECIPES, check_types, quantise


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "Q6_K"])
def test_the_bytes_do_not_depend_on_threads(tiny: Any, tmp_path: Path, kind: str) -> None:
    made = []
    for threads in (1, 2, 4):
        quantise(tiny.f16, tmp_path / f"{threads}.gguf", kind, threads=threads)
        made.append(sha256(tmp_path / f"{threads}.gguf"))
    assert len(set(made)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.gguf", "2.gguf", "4.gguf"]


@pytest.mark.parametrize("kind", sorted(set(RECIPES) - {"F16"}))
def test_every_matrix_has_the_recipe_s_type_and_every_vector_is_f32(tiny: Any, tmp_path: Path, kind: str) -> None:
    quantise(tiny.f16, tmp_path / "out.gguf", kind)
    types = {(len(tensor.shape) > 1, tensor.type) for tensor in read_header(tmp_path / "out.gguf").tensors}
    assert {name for matrix, name in types if matrix} <= RECIPES[kind].types
    assert {name for matrix, name in types if not matrix} == {"F32"}


def narrow_model(tiny: Any, folder: Path) -> Path:
    """An F16 file whose feed-forward rows are not whole blocks of 256."""
    from workbench.decoder import weights
    from workbench.decoder.config import DecoderConfig
    from workbench.decoder.model import Decoder
    from workbench.stages.package import gguf_file
    from workbench.tokens.tokenizer import Tokenizer

    decoder = Decoder(replace(DecoderConfig.load(tiny.model), intermediate_size=320))
    decoder.initialise(1)
    weights.save(decoder, folder)
    path, tokenizer = folder / "narrow.gguf", Tokenizer.load(tiny.tokenizer)
    provenance = gguf_file.Provenance("MIT")
    gguf_file.write(path, model=folder, tokenizer=tokenizer, name="narrow", kind="F16", provenance=provenance)
    return path


def test_a_silent_fallback_fails_names_the_tensors_and_leaves_nothing(tiny: Any, tmp_path: Path) -> None:
    source = narrow_model(tiny, tmp_path)
    with pytest.raises(StageFailed, match=r"Q4_K_M fell back to other types: blk\.0\.ffn_down\.weight \[320, 256\] is"):
        quantise(source, tmp_path / "out.gguf", "Q4_K_M")
    assert not list(tmp_path.glob("out*"))


def test_what_falls_back_for_one_type_may_fit_another(tiny: Any, tmp_path: Path) -> None:
    quantise(narrow_model(tiny, tmp_path), tmp_path / "out.gguf", "Q8_0")  # blocks of 32
    check_types(read_header(tmp_path / "out.gguf"), "Q8_0")


def test_an_unknown_kind_is_refused_with_those_that_are_known(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown quantisation 'Q3'(.|\n)*Q4_K_M"):
        quantise(tiny.f16, tmp_path / "out.gguf", "Q3")


def test_quantising_what_is_quantised_already_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"could not quantise tiny-Q8_0\.gguf: .*requantizing"):
        quantise(tiny.q8, tmp_path / "out.gguf", "Q4_K_M")
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_written_is_an_error_and_no_crash(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises((StageFailed, Corrupt)):
        quantise(tiny.f16, tmp_path / "no" / "folder" / "out.gguf", "Q8_0")
