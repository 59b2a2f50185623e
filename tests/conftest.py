"""Shared by all tests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes, or making one (the first reads all of Unicode), is no verdict: a slow machine is not wrong.
# The same examples each time, as a red run must mean a red change; HYPOTHESIS_PROFILE=desk asks for new ones each time.
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "ci")

# A shell that starts the tests in the background has Ctrl-C ignored, and every program under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def gates() -> Iterator[Path]:
    """A folder that every user of this machine may use: a stage in the sandbox, which may write there where its
    pipeline says so, and the test tell each other by files how far they are."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-gates-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slowness() -> float:
    """How much more CPU time work takes here than on the machine of the promises ("under a second"); at least 1."""
    return max(1.0, statistics.median(_fixed_work_cpu_s() for _ in range(5)) / 0.065)


def _fixed_work_cpu_s() -> float:
    """Hashing, inflating and looking names up: what the checks of hostile things do."""
    start_s = time.process_time()
    data = bytes(range(256)) * 4096
    packed = zlib.compress(data, 1)
    for _ in range(24):
        hashlib.sha256(data).digest()
        zlib.decompress(packed)
    seen: dict[str, int] = {}
    for name in sorted(f"{number * 7919 % 100_003:06}" for number in range(40_000)):
        seen[name] = len(seen)
    return time.process_time() - start_s


@dataclass(frozen=True)
class TinyModel:
    """A random Llama of two layers with a small tokenizer and dataset, as payload folders and as GGUF files."""

    model: Path
    tokenizer: Path
    dataset: Path
    metrics: Path
    f32: Path
    f16: Path
    q8: Path

    @property
    def inputs(self) -> dict[str, Path]:
        return {"model": self.model, "tokenizer": self.tokenizer, "dataset": self.dataset, "metrics": self.metrics}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Built once for a whole test session, in about two seconds; nobody writes into it."""
    from workbench.decoder import weights
    from workbench.decoder.config import DecoderConfig
    from workbench.decoder.model import Decoder
    from workbench.inference.quantise import quantise
    from workbench.stages.package import gguf_file
    from workbench.tokens import spm
    from workbench.tokens.tokenizer import Tokenizer

    root = tmp_path_factory.mktemp("tiny")
    for name in ("model", "tokenizer", "dataset", "metrics", "gguf"):
        (root / name).mkdir()
    _write_dataset(root / "dataset")
    (root / "metrics" / "metrics.json").write_text('{"format": 1, "bits_per_byte": 2.5, "fim": {"exact_match": 0.1}}')
    texts = [json.loads(line)["text"] for line in (root / "dataset" / "train.jsonl").read_text().splitlines()]
    tokenizer = Tokenizer(spm.train(texts, vocab_size=416, character_coverage=1.0, longest_piece=16))
    (root / "tokenizer" / "tokenizer.model").write_bytes(tokenizer.model)
    about = {"format": 1, "vocab_size": 416, "ids": dict(tokenizer.ids), "sha256": tokenizer.sha256}
    (root / "tokenizer" / "tokenizer.json").write_text(json.dumps(about))
    config = DecoderConfig(
        vocab_size=416,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=256,
    )
    decoder = Decoder(config)
    decoder.initialise(1, scale=0.05)
    weights.save(decoder, root / "model")
    files = [root / "gguf" / f"tiny-{kind}.gguf" for kind in ("F32", "F16", "Q8_0")]
    for kind, path in zip(("F32", "F16"), files, strict=False):
        gguf_file.write(
            path,
            model=root / "model",
            tokenizer=tokenizer,
            name="tiny",
            kind=kind,
            provenance=gguf_file.Provenance("MIT", {"model": "0" * 64}, [("alpha", "1.0.0")]),
        )
    quantise(files[1], files[2], "Q8_0")
    return TinyModel(*(root / name for name in ("model", "tokenizer", "dataset", "metrics")), *files)


def _write_dataset(folder: Path) -> None:
    """Small Rust functions of two packages, as S3 leaves them."""
    splits = {"train": 200, "validation": 80, "test": 20}
    generator = random.Random(7)
    for split, count in splits.items():
        rows = sorted((_document(text) for text in _functions(generator, count)), key=lambda row: row["id"])
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    packages = [
        {"package": name, "name": name, "version": "1.0.0", "kind": "sdist", "license": license, "sha256": "0" * 64}
        for name, license in (("alpha", "MIT"), ("beta", "Apache-2.0 OR MIT"))
    ]
    (folder / "packages.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in packages))


def _functions(generator: random.Random, count: int) -> Iterator[str]:
    words = ["value", "index", "buffer", "état", "result", "count", "naïve", "日本", "🦀"]
    for number in range(count):
        name, other = generator.sample(words[:6], 2)
        body = "\n".join(
            f"    let {generator.choice(words)}_{line} = {name}.{other}({line * 7});\t// {generator.choice(words)}"
            for line in range(generator.randrange(2, 30))
        )
        yield f"pub fn {name}_{number}({other}: &str) -> u32 {{\n{body}\n    {other}.len()\n}}\n"


def _document(text: str) -> dict[str, object]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    package, license = ("alpha", "MIT") if digest < "8" else ("beta", "Apache-2.0 OR MIT")
    row = {"id": digest, "text": text, "path": f"src/{digest[:8]}.rs", "package": package, "license": license}
    return {**row, "bytes": len(text.encode())}
