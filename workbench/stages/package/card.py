"""README.md of a release: what it is, what it learned from, how good it is, how to use it, what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.decoder.config import DecoderConfig
from workbench.stages.package.gates import Divergence
from workbench.stages.package.licences import PackageShare, by_licence

MAX_METRICS = 40


@dataclass(frozen=True)
class Facts:
    """Everything that the card says."""

    name: str
    config: DecoderConfig
    shares: Sequence[PackageShare]
    license: str
    metrics: Mapping[str, Any]
    files: Mapping[str, int]  # GGUF file -> bytes
    divergences: Mapping[str, Divergence]  # kind -> …
    reference: str  # file name of the one to use by default


def render(facts: Facts) -> str:
    """The card as Markdown, with a final newline."""
    parts = [_what(facts), _use(facts), _data(facts), _metrics(facts), _files(facts), _limits(facts)]
    return "\n\n".join(parts) + "\n"


def _what(facts: Facts) -> str:
    config = facts.config
    return (
        f"# {facts.name}\n\n"
        f"A decoder of {config.num_parameters / 1e6:.1f} million parameters for source code, trained from scratch: "
        f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.num_attention_heads} heads "
        f"({config.num_key_value_heads} for keys and values), {config.vocab_size} tokens, a context of "
        f"{config.max_position_embeddings} tokens. Llama architecture. It completes code and fills in the middle; it "
        "was not tuned to follow instructions or to chat."
    )


def _use(facts: Facts) -> str:
    return f"""## Use

```
workbench complete release/{facts.name} --prompt 'fn main() {{'
workbench complete release/{facts.name} --prompt 'fn add(a: u32, b: u32) -> u32 {{' --suffix '}}'
workbench serve release/{facts.name} --port 8080
```

Any program that reads GGUF can load `{facts.reference}`. A prompt begins with `<s>`. Fill-in-the-middle is
`<s> <|fim_prefix|> PREFIX <|fim_suffix|> SUFFIX <|fim_middle|>`, or `<s> <|fim_prefix|> <|fim_suffix|> SUFFIX
<|fim_middle|> PREFIX`; the ids stand in the file's `tokenizer.ggml.fim_*_token_id` keys. Both end with `</s>`."""


def _data(facts: Facts) -> str:
    lines = [
        "## Data and licences",
        "",
        f"Public source code of {len(facts.shares)} packages, {sum(share.documents for share in facts.shares)} files, "
        f"{sum(share.bytes for share in facts.shares) / 1e6:.1f} MB. `licenses.json` names every package.",
        "",
        "| licence | packages | files | MB |",
        "|---|---:|---:|---:|",
    ]
    for license, row in by_licence(facts.shares).items():
        lines.append(f"| {_cell(license)} | {row['packages']} | {row['documents']} | {row['bytes'] / 1e6:.2f} |")
    lines += ["", f"All of them together: `{facts.license}`. What the model writes may repeat what it learned from."]
    return "\n".join(lines)


def _metrics(facts: Facts) -> str:
    numbers = list(_numbers(facts.metrics))
    lines = ["## Metrics", "", "Measured on held-out files before packaging (`metrics.json`).", ""]
    lines += ["| metric | value |", "|---|---:|"]
    lines += [f"| {_cell(name)} | {value:.6g} |" for name, value in numbers[:MAX_METRICS]]
    return "\n".join(lines)


def _files(facts: Facts) -> str:
    lines = [
        "## Files",
        "",
        "Divergence is from the F32 weights, over held-out text (`gates.json`).",
        "",
        "| file | MB | mean KL (nats) | same first choice | perplexity |",
        "|---|---:|---:|---:|---:|",
    ]
    for file, size in facts.files.items():
        kind = file.removeprefix(f"{facts.name}-").removesuffix(".gguf")
        seen = facts.divergences[kind]
        lines.append(
            f"| {file} | {size / 1e6:.1f} | {seen.kl_mean:.3g} | {seen.argmax_agreement:.1%} | {seen.perplexity:.4g} |"
        )
    return "\n".join(lines)


def _limits(facts: Facts) -> str:
    return f"""## Limits

A small model: it imitates the surface of code well and its meaning poorly. What it writes may not compile, may be
wrong, and may be unsafe; check it before it is run. It knows only the packages above, as they were when they were
crawled, and sees {facts.config.max_position_embeddings} tokens at a time."""


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a JSON value by their dotted path, in order."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _numbers(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and path != "format":
        yield path, float(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
