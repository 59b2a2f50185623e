"""The order of things: choose what to ask, ask rustc what stands alone, ask the model, judge, compare, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from workbench.decoder.config import DecoderConfig
from workbench.domain.canonical import canonical_json, canonical_lines
from workbench.domain.errors import ToolMissing, UserError
from workbench.domain.generation import Sampling
from workbench.domain.stage import StageResult
from workbench.ports.work import StageContext
from workbench.stages.evaluate import judge, report, tasks
from workbench.stages.evaluate.compiling import ROUND, Compiler
from workbench.stages.evaluate.model import Batch, Bits, Completion, Request, Text, Work, batches, compute
from workbench.stages.evaluate.params import EvaluateParams
from workbench.stages.evaluate.scores import byte_entropy
from workbench.stages.evaluate.snippets import snippets
from workbench.stages.evaluate.spec import check_room
from workbench.stages.evaluate.tasks import Source, Task
from workbench.tokens import documents
from workbench.tokens.tokenizer import Tokenizer

POOL_BYTES = 8 << 20  # of held-out text that tasks are chosen from, at least
SNIPPETS_TRIED = 16  # for each one wanted: most source does not stand alone
_INSTALL = 'install what is missing, or set evaluate\'s compile = "skip"'


def run(context: StageContext) -> StageResult:
    """Leaves ``metrics.json``, ``samples.jsonl`` and ``report.html``."""
    params = EvaluateParams.model_validate(context.params)
    maker = Maker.open(context, params)
    compiler = Compiler(context.sandbox, context.workers)
    refusal = _refusal(params, compiler)
    if refusal and params.compile != "skip" and params.compile_tasks:
        context.say(f"compile checks are refused: {refusal}")
    pool = list(_pool(context.inputs["dataset"], params))
    standing, tried = ([], 0) if refusal else _standing(context, params, compiler, pool)
    asked = Asked(
        texts=_texts(pool, params.likelihood_bytes),
        line=maker.tasks("line", pool, params.line_tasks),
        snippet=maker.tasks("compile", standing, params.compile_tasks),
        standing=len(standing),
        tried=tried,
        refusal=refusal,
    )
    if asked.not_compiled and not refusal:
        context.say(f"nothing is compiled: {asked.not_compiled}")
    measured, completions = _ask(context, params, maker, asked)
    rows = judge.rows(
        asked.line, asked.snippet, completions, measured, _compiles(context, asked, completions, compiler)
    )
    metrics = judge.metrics(rows, asked.facts(), params, seed=context.seed, previous=context.inputs.get("previous"))
    (context.output / "metrics.json").write_bytes(canonical_lines(metrics))
    (context.output / "samples.jsonl").write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
    curve = report.read_curve(context.inputs["model"])
    (context.output / "report.html").write_text(report.page(context.name, metrics, rows, curve), encoding="utf-8")
    counts = {
        "documents": len(asked.texts),
        "line_tasks": len(asked.line),
        "compile_tasks": len(asked.snippet),
        "completions": len(completions),
    }
    return StageResult(counts=counts, metrics=judge.headline(metrics))


@dataclass(frozen=True)
class Asked:
    """What this step measures, and how it came to it."""

    texts: Sequence[Text]
    line: Sequence[Task]
    snippet: Sequence[Task]
    standing: int  # snippets that compile before anything is masked
    tried: int
    refusal: str

    def facts(self) -> dict[str, Any]:
        return {
            "compile_refused": self.not_compiled,
            "snippets_standing": self.standing,
            "snippets_tried": self.tried,
            "control_bits_per_byte": byte_entropy(text.text for text in self.texts),
        }

    @property
    def not_compiled(self) -> str:
        """Why nothing is compiled; empty where something is."""
        if self.refusal or self.snippet:
            return self.refusal
        if not self.tried:
            return "no part of the held-out files can stand alone: all of it names what is elsewhere"
        if not self.standing:
            return f"none of the {self.tried} parts of held-out files that might stand alone does"
        return f"none of the {self.standing} parts of held-out files that stand alone has a span that fits the model"


@dataclass(frozen=True)
class Maker:
    """Makes tasks that the model can take, and prompts of them."""

    tokenizer: Tokenizer
    context: int  # tokens
    params: EvaluateParams
    seed: int

    @classmethod
    def open(cls, context: StageContext, params: EvaluateParams) -> Maker:
        config = DecoderConfig.load(context.inputs["model"])
        tokenizer = Tokenizer.load(context.inputs["tokenizer"])
        if config.vocab_size < tokenizer.vocab_size:
            raise UserError(
                f"the model has {config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}",
                "evaluate a model with the tokenizer that its shards were made with",
            )
        check_room(config.max_position_embeddings, params.max_new_tokens)
        return cls(tokenizer, config.max_position_embeddings, params, context.seed)

    def fits(self, prefix: str, middle: str, suffix: str) -> bool:
        prompt = len(self.tokenizer.fim_prompt(prefix, suffix))
        return (
            len(self.tokenizer.encode(middle)) < self.params.max_new_tokens
            and prompt + self.params.max_new_tokens <= self.context
        )

    def tasks(self, kind: str, sources: Sequence[Source], wanted: int) -> list[Task]:
        """The first ``wanted`` tasks, in hash order of their sources; one for each source."""
        found: dict[str, Task] = {}
        for source in tasks.in_hash_order(sources, self.seed):
            if len(found) >= wanted:
                break
            task = tasks.choose(
                source,
                kind=kind,
                seed=self.seed,
                longest_middle=self.params.longest_middle,
                context_characters=self.params.context_characters,
                fits=self.fits,
            )
            if task is not None:
                found.setdefault(task.id, task)
        return sorted(found.values(), key=lambda task: task.id)

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Batch]:
        lengths = [len(self.tokenizer.fim_prompt(r.prefix, r.suffix, r.layout)) for r in requests]
        return batches(requests, sampling, lengths)

    def work(self, line: Sequence[Task], snippet: Sequence[Task]) -> list[Batch]:
        """Greedy for every task and, of the snippets, ``samples`` that are drawn."""
        params = self.params
        greedy = Sampling(temperature=0.0, seed=self.seed, max_tokens=params.max_new_tokens)
        drawn = Sampling(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            seed=self.seed,
            max_tokens=params.max_new_tokens,
        )
        certain = [self._request(task, layout, 0) for task in line for layout in judge.LAYOUTS]
        certain += [self._request(task, "psm", 0) for task in snippet]
        random = [self._request(task, "psm", number) for task in snippet for number in range(1, params.samples + 1)]
        return [*self.batches(certain, greedy), *self.batches(random, drawn)]

    def _request(self, task: Task, layout: str, sample: int) -> Request:
        row = int(tasks.rank("row", task.id, layout, sample)[:15], 16)
        return Request(judge.key(task.id, layout, sample), task.prefix, task.suffix, layout, row)


def _refusal(params: EvaluateParams, compiler: Compiler) -> str:
    if params.compile == "skip" or not params.compile_tasks:
        return "not asked for"
    refusal = compiler.refusal()
    if refusal and params.compile == "require":
        raise ToolMissing(f"completions cannot be compiled here: {refusal}", _INSTALL)
    return refusal


def _pool(dataset: Path, params: EvaluateParams) -> Iterator[Source]:
    """Held-out documents in the split's order, which is by content hash: the first ones are a fair sample."""
    left = max(POOL_BYTES, params.likelihood_bytes)
    path = documents.split_file(dataset, params.split)
    for document in chain.from_iterable(map(documents.read, documents.ranges(path))):
        if left <= 0:
            return
        left -= len(document.text.encode())
        yield Source(document.id, document.text)


def _texts(pool: Sequence[Source], limit_bytes: int) -> list[Text]:
    found: list[Text] = []
    left = limit_bytes
    for source in pool:
        if left <= 0:
            break
        if source.text:
            found.append(Text(source.document, source.text))
            left -= len(source.text.encode())
    if not found:
        raise UserError("the held-out split has no text", "give a dataset whose validation split holds documents")
    return found


def _standing(
    context: StageContext, params: EvaluateParams, compiler: Compiler, pool: Sequence[Source]
) -> tuple[list[Source], int]:
    """Snippets that compile as they are, so that the denominator is honest; and how many were tried."""
    found = {part.text: part for source in pool for part in snippets(source)}
    order = tasks.in_hash_order(found.values(), context.seed)[: SNIPPETS_TRIED * params.compile_tasks]

    # Some that stand alone have no span to mask, so somewhat more are wanted than there will be tasks.
    wanted = params.compile_tasks + params.compile_tasks // 4

    def told(asked: int, standing: int) -> None:
        context.progress(asked, len(order), f"snippets tried; {standing} stand alone, {wanted} are wanted")

    verdicts = list(compiler.first_that_compile([source.text for source in order], wanted, told))
    return [found[text] for text, compiles in verdicts if compiles], len(verdicts)


def _ask(
    context: StageContext, params: EvaluateParams, maker: Maker, asked: Asked
) -> tuple[list[Bits], dict[str, Completion]]:
    """All that the model is asked, spread over the workers; the order of what is asked is fixed."""
    work: list[Work] = [*asked.texts, *maker.work(asked.line, asked.snippet)]
    function = partial(compute, model=context.inputs["model"], tokenizer=context.inputs["tokenizer"])
    measured: list[Bits] = []
    completions: dict[str, Completion] = {}
    started_s = time.monotonic()
    for done, answer in enumerate(context.mapper.map(function, work, chunk=2), 1):
        if isinstance(answer, Bits):
            measured.append(answer)
        else:
            completions.update((completion.key, completion) for completion in answer)
        tokens = sum(bits.tokens for bits in measured) + sum(c.tokens for c in completions.values())
        rate = tokens / max(time.monotonic() - started_s, 1e-9)
        context.progress(done, len(work), "batches", tokens_per_s=rate)
    return measured, completions


def _compiles(
    context: StageContext, asked: Asked, completions: dict[str, Completion], compiler: Compiler
) -> dict[str, bool]:
    """rustc's verdict by filled source: each snippet with each of its completions, and with nothing in the gap."""
    filled = sorted(
        {
            task.filled(text)
            for task in asked.snippet
            for text in ["", *(c.text for key, c in completions.items() if key.startswith(task.id + "/"))]
        }
    )
    verdicts: dict[str, bool] = {}
    for start in range(0, len(filled), ROUND):
        part = filled[start : start + ROUND]
        verdicts.update(zip(part, compiler.check(part), strict=True))
        context.progress(start + len(part), len(filled), "completions given to rustc")
    return verdicts
