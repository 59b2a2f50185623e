"""Import: models and datasets of strangers become artifacts in our layout, or are refused with the reason."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from workbench.app.importing.file import import_file
from workbench.app.importing.source import spdx_expression
from workbench.corpus.dataset import DatasetReader
from workbench.domain.errors import NotFound, Refused, UserError
from workbench.domain.gguf import HostileHeader, parse_header


def gguf_bytes(path: Path, **fields: Any) -> bytes:
    """A small model file, written by the gguf library."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(fields.get("name", "tiny | <b>model</b>"))
    writer.add_token_list([b"a", b"b"] * 100)
    writer.add_file_type(7)
    weights = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    writer.add_tensor("blk.0.w", gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0),
                      raw_dtype=gguf.GGMLQuantizationType.Q8_0)  # fmt: skip
    writer.add_tensor("norm", weights[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    gguf_bytes(tmp_path / "theirs.gguf")
    return tmp_path / "theirs.gguf"


def bring(repository: Any, path: Path, **more: Any) -> Any:
    """Import without opening the model: what the sandbox says of one is tested beside this."""
    given = {"name": "theirs", "license": "apache-2.0", "origin": "a colleague", "who": "Ann <ann@localhost>", **more}
    return import_file(repository, path, **{"trial": lambda model: None, **given})


def test_a_model_becomes_a_release_with_checksums_licence_and_card(
    repository: Any, model: Path, tmp_path: Path
) -> None:
    artifact = bring(repository, model)
    assert artifact.tag.short == "release/theirs/v1.0.0"
    assert artifact.manifest.stage == "import"
    assert artifact.manifest.params == {
        "file": "theirs.gguf", "license": "Apache-2.0", "origin": "a colleague", "size": model.stat().st_size,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }  # fmt: skip
    repository.artifacts.checkout(artifact, tmp_path / "out")
    payload = tmp_path / "out" / "payload"
    assert sorted(path.name for path in payload.iterdir()) == [
        "README.md", "SHA256SUMS", "licenses.json", "theirs-Q8_0.gguf"
    ]  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=payload, check=True)
    assert json.loads((payload / "licenses.json").read_text())["license"] == "Apache-2.0"
    card = (payload / "README.md").read_text()
    assert "Apache-2.0" in card
    assert "<b>" not in card
    assert "1 F32, 1 Q8_0" in card


def test_the_same_file_again_is_the_same_version_and_leaves_nothing_behind(repository: Any, model: Path) -> None:
    assert bring(repository, model) == bring(repository, model)
    assert list(repository.path.glob("**/*import-*")) == []
    assert model.exists()


def test_a_hostile_model_is_refused_with_the_reason(repository: Any, model: Path, tmp_path: Path) -> None:
    good = model.read_bytes()
    cases = {
        "does not start": b"GGML" + good[4:],
        "version 77": good[:4] + struct.pack("<I", 77) + good[8:],
        "number of tensors": good[:8] + struct.pack("<Q", 1 << 40) + good[16:],
        "number of keys": good[:16] + struct.pack("<Q", 1 << 63) + good[24:],
        "length of a key": good[:24] + struct.pack("<Q", 1 << 50) + good[32:],
        "after the end of the file": good[:-200],
        "no tensors": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        "ends inside its header": good[:100],
    }
    for reason, data in cases.items():
        (tmp_path / "bad.gguf").write_bytes(data)
        with pytest.raises(Refused, match=reason):
            bring(repository, tmp_path / "bad.gguf")
    assert repository.artifacts.list() == []


def test_mutated_headers_are_read_or_refused_but_never_anything_else(model: Path) -> None:
    good = model.read_bytes()
    pick = random.Random(11)
    refused = 0
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(pick.randrange(1, 4)):
            bad[pick.randrange(4, 2500) % len(bad)] = pick.choice((0, 1, 127, 128, 255, pick.randrange(256)))
        try:
            header = parse_header(io.BytesIO(bad), len(bad))
        except HostileHeader:
            refused += 1
        else:
            assert all(0 < start < len(bad) for start in header.starts)
    assert refused > 100


def test_a_model_that_its_trial_refuses_is_not_taken(repository: Any, model: Path) -> None:
    tried = []

    def refuse(path: Path) -> None:
        tried.append(path)
        raise Refused("theirs.gguf is refused: it cannot be opened")

    with pytest.raises(Refused, match="cannot be opened"):
        bring(repository, model, trial=refuse)
    assert tried == [model]
    assert repository.artifacts.list() == []
    assert list(repository.path.glob("**/*import-*")) == []


def test_a_model_that_changes_between_its_trial_and_its_storing_is_not_taken(repository: Any, model: Path) -> None:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")

    with pytest.raises(Refused, match="changed while it was imported"):
        bring(repository, model, trial=change)
    assert repository.artifacts.list() == []


def test_a_hostile_header_is_refused_before_anything_is_opened(repository: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0))
    with pytest.raises(Refused, match="number of tensors"):
        bring(repository, tmp_path / "bad.gguf", trial=lambda path: pytest.fail("it was opened"))


def lines(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_json_lines_become_a_dataset_in_our_layout(repository: Any, tmp_path: Path) -> None:
    rows = [{"text": f"fn f{n}() {{}}\n", "stars": n} for n in range(300)]
    rows[7] |= {"license": "mit", "path": "src/ü.rs"}
    artifact = bring(repository, lines(tmp_path / "d.jsonl", *rows, rows[0], ""))
    assert artifact.tag.short == "dataset/theirs/v1.0.0"
    assert artifact.manifest.counts["documents"] == 300
    assert artifact.manifest.counts["duplicates"] == 1
    repository.artifacts.checkout(artifact, tmp_path / "out")
    reader = DatasetReader(tmp_path / "out" / "payload")
    documents = [document for split in ("train", "validation", "test") for document in reader.documents(split)]
    assert {document.text for document in documents} == {row["text"] for row in rows}
    assert {document.license for document in documents} == {"Apache-2.0", "MIT"}
    assert "theirs/src/ü.rs" in {document.path for document in documents}
    packages = (tmp_path / "out" / "payload" / "packages.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in packages] == ["import"]


@pytest.mark.parametrize("number", [200, 999, 1000])
def test_a_small_dataset_holds_something_out_too(repository: Any, tmp_path: Path, number: int) -> None:
    artifact = bring(repository, lines(tmp_path / "d.jsonl", *({"text": f"fn f{n}() {{}}\n"} for n in range(number))))
    statistics = json.loads(repository.artifacts.read(artifact, "statistics.json"))
    sizes = {split: statistics["splits"][split]["documents"] for split in ("train", "validation", "test")}
    assert sum(sizes.values()) == statistics["total"]["documents"] == statistics["total"]["lines"] == number
    share = 0.1 if number < 1000 else 0.01
    assert all(0.3 * share < sizes[split] / number < 2.5 * share for split in ("validation", "test"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "line 2 is refused: not JSON"), ("[" * 100_000, "line 2 is refused: .* nested"), ("[]", "it has no text"),
        ({"text": ""}, "it has no text"), ({"text": 5}, "it has no text"), ({"text": "\ud800"}, "half a character"),
        ({"text": "a", "path": "../b"}, "payload path"), ({"text": "a", "license": "Mine"}, "not an SPDX"),
        ({"text": "a", "path": 5}, "are text"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_with_its_number(repository: Any, tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        bring(repository, lines(tmp_path / "d.jsonl", {"text": "good"}, row))
    assert repository.artifacts.list() == []


def test_a_wrong_licence_kind_or_path_says_what_to_do(repository: Any, model: Path, tmp_path: Path) -> None:
    for wrong in ("", "Own-Licence", "MIT OR", "MIT; rm -rf"):
        with pytest.raises(UserError, match="SPDX"):
            bring(repository, model, license=wrong)
    with pytest.raises(UserError, match=r"\.gguf model or a \.jsonl dataset"):
        bring(repository, model, kind="model")
    with pytest.raises(NotFound):
        bring(repository, tmp_path / "none.gguf")
    with pytest.raises(Refused, match="no documents"):
        bring(repository, lines(tmp_path / "d.jsonl"))
    assert spdx_expression("mit or apache-2.0") == "MIT OR Apache-2.0"
