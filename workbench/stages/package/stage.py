"""S8 package: the order of work. Not here: what is checked (``gates``) or how a file is written (``gguf_file``)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from workbench.decoder.config import DecoderConfig
from workbench.domain.canonical import canonical_lines, digest_of
from workbench.domain.errors import StageFailed
from workbench.domain.reading import anything, load_json, mapping
from workbench.domain.stage import StageResult
from workbench.ports.work import StageContext
from workbench.stages.package import card, gates, gguf_file, licences
from workbench.stages.package.gates import Divergence
from workbench.stages.package.spec import RESIZE, misfit
from workbench.tokens.tokenizer import Tokenizer

FORMAT = 1


def run(context: StageContext) -> StageResult:
    """Write, check, describe. Any gate that does not hold fails the stage and nothing is released."""
    model, dataset = context.inputs["model"], context.inputs["dataset"]
    config = DecoderConfig.load(model)
    tokenizer = Tokenizer.load(context.inputs["tokenizer"])
    _check_sizes(config, tokenizer, context.params["quantisations"])
    shares = licences.read(dataset)
    provenance = gguf_file.Provenance(
        license=licences.expression(shares),
        digests=_digests(context.inputs),
        datasets=[(share.name, share.version) for share in shares],
    )

    def write(path: Path, kind: str) -> None:
        gguf_file.write(path, model=model, tokenizer=tokenizer, name=context.name, kind=kind, provenance=provenance)

    steps = len(context.params["quantisations"]) + 4
    f32 = context.scratch / "F32.gguf"
    write(f32, "F32")
    files = {"F16": context.output / f"{context.name}-F16.gguf"}
    write(files["F16"], "F16")
    context.progress(1, steps, "steps")
    for done, kind in enumerate(context.params["quantisations"], 2):
        files[kind] = context.output / f"{context.name}-{kind}.gguf"
        context.models.quantise(files["F16"], files[kind], kind)
        context.progress(done, steps, "steps")
    seen, divergences = _gates(context, f32, files, tokenizer)
    context.progress(steps - 1, steps, "steps")
    _describe(context, config, shares, provenance.license, files, divergences)
    _write_json(context.output / "gates.json", {"format": FORMAT, **seen})
    _checksums(context.output)
    context.progress(steps, steps, "steps")
    return _result(config, seen, divergences, files)


def _check_sizes(config: DecoderConfig, tokenizer: Tokenizer, kinds: Sequence[str]) -> None:
    if config.vocab_size != tokenizer.vocab_size:
        raise StageFailed(
            f"the model has {config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}",
            "train the model on shards that this tokenizer made",
        )
    rows = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads x head_dim": config.num_attention_heads * config.head_dim,
    }
    if wrong := misfit(rows, kinds):
        raise StageFailed(f"the model's {wrong}", RESIZE)


def _digests(inputs: Mapping[str, Path]) -> dict[str, str]:
    """sha256 of the weights and the tokenizer, and one over the dataset's files."""
    dataset = inputs["dataset"]
    names = sorted(path.name for path in dataset.iterdir() if path.is_file())
    return {
        "model": _sha256(inputs["model"] / gguf_file.WEIGHTS),
        "tokenizer": _sha256(inputs["tokenizer"] / "tokenizer.model"),
        "dataset": digest_of({name: _sha256(dataset / name) for name in names}),
    }


def _gates(
    context: StageContext, f32: Path, files: Mapping[str, Path], tokenizer: Tokenizer
) -> tuple[dict[str, Any], dict[str, Divergence]]:
    params = context.params
    texts = [str(row["text"]) for row in licences.rows(context.inputs["dataset"] / "validation.jsonl")]
    with closing(context.models.load(f32, threads=context.workers, exact=True)) as exact:
        seen: dict[str, Any] = {
            "tokens": gates.same_tokens(exact, tokenizer, gates.snippets(texts, params["held_out_texts"]))
        }
        length = min(params["window_tokens"], exact.context)
        stretches = gates.windows(tokenizer, texts, params["divergence_windows"], length)
        seen["logits"] = gates.same_logits(
            exact, _torch_logits(context.inputs["model"]), stretches[: params["parity_windows"]]
        )
        divergences = {}
        for kind, path in files.items():
            with closing(context.models.load(path, threads=context.workers, exact=True)) as quantised:
                divergences[kind] = gates.divergence(exact, quantised, stretches)
    seen["divergence"] = {kind: found.to_json() for kind, found in divergences.items()}
    return seen, divergences


def _torch_logits(model: Path) -> Callable[[Sequence[int]], Any]:
    """Tokens -> float32 [T, V] by our own decoder, in one thread."""
    import torch

    from workbench.decoder import weights

    decoder = weights.load(model)

    def logits(tokens: Sequence[int]) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # some reductions change their last bits with the number of threads
        try:
            with torch.inference_mode():
                return decoder(torch.tensor([list(tokens)]))[0].numpy()
        finally:
            torch.set_num_threads(threads)

    return logits


def _describe(
    context: StageContext,
    config: DecoderConfig,
    shares: Sequence[licences.PackageShare],
    license: str,
    files: Mapping[str, Path],
    divergences: Mapping[str, Divergence],
) -> None:
    """Tokenizer, configuration, metrics, licences and the card."""
    for role, names in (
        ("tokenizer", ("tokenizer.model", "tokenizer.json")),
        ("model", ("config.json",)),
        ("metrics", ("metrics.json",)),
    ):
        for name in names:
            shutil.copyfile(context.inputs[role] / name, context.output / name)
    licence_file = {
        "format": FORMAT,
        "license": license,
        "by_license": licences.by_licence(shares),
        "packages": [share.to_json() for share in shares],
    }
    _write_json(context.output / "licenses.json", licence_file)
    facts = card.Facts(
        name=context.name,
        config=config,
        shares=shares,
        license=license,
        metrics=_read_json(context.output / "metrics.json"),
        files={path.name: path.stat().st_size for path in files.values()},
        divergences=divergences,
        reference=files["Q8_0" if "Q8_0" in files else "F16"].name,
    )
    (context.output / "README.md").write_text(card.render(facts), encoding="utf-8")


def _checksums(folder: Path) -> None:
    """SHA256SUMS as ``sha256sum --check`` reads it."""
    names = sorted(path.name for path in folder.iterdir())
    text = "".join(f"{_sha256(folder / name)}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(text, encoding="utf-8")


def _result(
    config: DecoderConfig, seen: Mapping[str, Any], divergences: Mapping[str, Divergence], files: Mapping[str, Path]
) -> StageResult:
    return StageResult(
        counts={
            "parameters": config.num_parameters,
            "gate_texts": seen["tokens"]["texts"],
            "gate_tokens": seen["tokens"]["tokens"],
            **{f"bytes_{kind}": path.stat().st_size for kind, path in files.items()},
        },
        metrics={
            "logit_difference_max": seen["logits"]["max_abs_difference"],
            **{f"kl_mean_{kind}": found.kl_mean for kind, found in divergences.items()},
            **{f"argmax_agreement_{kind}": found.argmax_agreement for kind, found in divergences.items()},
        },
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(canonical_lines(value))


def _read_json(path: Path) -> Mapping[str, Any]:
    return load_json(path.read_bytes(), mapping(anything()), what=path.name, hint="run the stage that made it again")
