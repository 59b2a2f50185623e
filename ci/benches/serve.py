"""Tokens a second of our completion beside llama-cpp-python's own `create_completion`, in turns, over one GGUF.

Prints one JSON object; ``ratio`` is ours over theirs. ``MODEL`` is a .gguf file; without one a random Llama of about 12
million parameters is made, for speed does not depend on the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from workbench.domain.generation import Prompt, Sampling
from workbench.inference.process import ProcessLoader

PROMPT = "pub fn parse(input: &str) -> Result<Vec<u8>, Error> {\n    let mut "
AIM = 1.0


def made_up(folder: Path) -> Path:
    """A Q8_0 file with random weights; its tokenizer is trained on our own source."""
    from workbench.decoder import weights
    from workbench.decoder.config import DecoderConfig
    from workbench.decoder.model import Decoder
    from workbench.stages.package import gguf_file
    from workbench.tokens import spm
    from workbench.tokens.tokenizer import Tokenizer

    texts = [path.read_text(encoding="utf-8") for path in sorted(Path("workbench").rglob("*.py"))]
    tokenizer = Tokenizer(spm.train(texts, vocab_size=4096, character_coverage=0.9995, longest_piece=16))
    config = DecoderConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
    )
    decoder = Decoder(config)
    decoder.initialise(1)
    weights.save(decoder, folder)
    provenance = gguf_file.Provenance("Apache-2.0")
    source = folder / "bench-F16.gguf"
    gguf_file.write(source, model=folder, tokenizer=tokenizer, name="bench", kind="F16", provenance=provenance)
    ProcessLoader().quantise(source, folder / "bench-Q8_0.gguf", "Q8_0")
    return folder / "bench-Q8_0.gguf"


def compare(path: Path, tokens: int, rounds: int, threads: int, temperature: float) -> dict[str, object]:
    """Both generate until ``tokens``; a run that ends sooner counts what it made."""
    from llama_cpp import Llama

    ours = ProcessLoader().load(path, threads=threads)
    threads = int(ours.engine["n_threads"])
    theirs = Llama(
        str(path), n_ctx=ours.context, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def ask_ours(seed: int) -> int:
        sampling = Sampling(temperature=temperature, seed=seed, max_tokens=tokens)
        return len(ours.generate(Prompt(PROMPT), sampling).tokens)

    def ask_theirs(seed: int) -> int:
        theirs.reset()
        made = theirs.create_completion(PROMPT, max_tokens=tokens, temperature=temperature, seed=seed, min_p=0.0)
        return int(made["usage"]["completion_tokens"])

    def rate(ask: Callable[[int], int], seed: int) -> float:
        started = time.perf_counter()
        return ask(seed) / (time.perf_counter() - started)

    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    asks = {"ours": ask_ours, "theirs": ask_theirs}
    for number in range(rounds + 1):  # the first round warms both up
        for name in sorted(asks, reverse=bool(number % 2)):
            value = rate(asks[name], number)
            if number:
                rates[name].append(value)
    theirs.close()
    ours.close()
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "bench": "serve",
        "threads": threads,
        "tokens": tokens,
        "temperature": temperature,
        "tokens_per_s": round(middle["ours"], 1),
        "llama_cpp_python_tokens_per_s": round(middle["theirs"], 1),
        "ratio": round(middle["ours"] / middle["theirs"], 2),
        "aim_ratio": AIM,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        path = given.model or made_up(Path(name))
        print(json.dumps(compare(path, given.tokens, given.rounds, given.threads, given.temperature)))


if __name__ == "__main__":
    main()
