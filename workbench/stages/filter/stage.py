"""S2 filter: the order of the rules over all files of a crawl. Each file is kept, normalised, or dropped with a reason.

Judging a file by itself is spread over processes; what compares files (copies) is done here, on sorted values. The
payload does not depend on how many processes there were.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workbench.config.params import resolve_params
from workbench.corpus import jsonl, rows
from workbench.corpus.rows import FileRow, PackageRow, RejectionRow
from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import Corrupt, UserError
from workbench.domain.stage import StageResult
from workbench.ports.work import StageContext
from workbench.stages.filter import check, compiling, licensing
from workbench.stages.filter.check import Task, Verdict
from workbench.stages.filter.licensing import PackageLicenses, Policy
from workbench.stages.filter.params import FilterParams
from workbench.stages.filter.rules import Drop

FORMAT = 1
LICENSES, REPORT = "licenses.jsonl", "report.json"
CHUNK = 16  # files that travel to a process together


def run(context: StageContext) -> StageResult:
    params = resolve_params(FilterParams, context.params, stage="filter")
    licensing.check_allowed(params.licenses)
    raw = context.inputs["raw"]
    packages = rows.read(PackageRow, raw / rows.PACKAGES)
    rulings = _rulings(context, params, raw, packages)
    tasks = _tasks(context, raw, packages, rulings)
    verdicts = _judge(context, params, tasks)
    drops = {verdict.path: verdict.drop for verdict in verdicts if verdict.drop}
    kept = [verdict for verdict in verdicts if not verdict.drop]
    kept = _without_copies(context, params, kept, drops)
    compiled = _compile(context, params, kept, tasks, raw, drops)
    kept = [verdict for verdict in kept if verdict.path not in drops]
    if not kept:
        raise UserError("the filter keeps no file", f"reasons: {_summary(drops)}; loosen its parameters or crawl more")
    _lay_out(context, kept, tasks, compiled)
    return _write(context, packages, verdicts, kept, drops, compiled, rulings)


def _rulings(
    context: StageContext, params: FilterParams, raw: Path, packages: Sequence[PackageRow]
) -> dict[str, PackageLicenses]:
    """By package, what licence holds where. Each distinct text is identified once."""
    policy = Policy(params.licenses)
    folder = raw / rows.PACKAGES_FOLDER
    texts = [folder / row.package / path for row in packages for path in row.license_files]
    digests = [_digest(text, folder) for text in texts]
    distinct = dict(zip(digests, texts, strict=True))
    found = dict(zip(distinct, context.mapper.map(licensing.identify, distinct.values(), chunk=4), strict=True))
    named = dict(zip(texts, (found[digest] for digest in digests), strict=True))
    return {
        row.package: PackageLicenses(
            folder / row.package,
            row,
            {path: named[folder / row.package / path] for path in row.license_files},
            policy,
            params.license_text,
        )
        for row in packages
    }


def _digest(text: Path, folder: Path) -> str:
    try:
        with text.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise Corrupt(
            f"{text.relative_to(folder)}, a licence text that {rows.PACKAGES} lists, cannot be read: {error.strerror}",
            "run `workbench verify` on the raw artifact",
        ) from None


def _tasks(
    context: StageContext, raw: Path, packages: Sequence[PackageRow], rulings: Mapping[str, PackageLicenses]
) -> list[Task]:
    """Every Rust file of the crawl, sorted by path."""
    scratch = context.scratch / "normalised"
    scratch.mkdir(parents=True)
    tasks = []
    for row in packages:
        folder = raw / rows.PACKAGES_FOLDER / row.package
        for source in sorted(folder.rglob("*.rs")):
            if source.is_symlink() or not source.is_file():
                continue
            path = f"{row.package}/{source.relative_to(folder).as_posix()}"
            ruling = rulings[row.package].ruling(check.folder_of(path))
            tasks.append((source, path, row.package, ruling))
    tasks.sort(key=lambda task: task[1])
    return [
        Task(source, scratch / f"{number}.rs", path, package, ruling)
        for number, (source, path, package, ruling) in enumerate(tasks)
    ]


def _judge(context: StageContext, params: FilterParams, tasks: Sequence[Task]) -> list[Verdict]:
    start_s, read_bytes, verdicts = time.monotonic(), 0, []
    for verdict in context.mapper.map(partial(check.check, params), tasks, chunk=CHUNK):
        verdicts.append(verdict)
        read_bytes += verdict.raw_bytes
        rate = read_bytes / 1e6 / max(1e-3, time.monotonic() - start_s)
        context.progress(len(verdicts), len(tasks), "files", **{"MB/s": round(rate, 1)})
    return verdicts


def _without_copies(
    context: StageContext, params: FilterParams, kept: list[Verdict], drops: dict[str, Drop]
) -> list[Verdict]:
    from workbench.stages.filter import duplicates

    candidates = [duplicates.Candidate(v.path, (v.rank, v.package, v.path), v.sha256, v.signature) for v in kept]
    exact = duplicates.exact(candidates)
    rest = [candidate for candidate in candidates if candidate.path not in exact]
    near = duplicates.near(rest, threshold=params.near_threshold, permutations=params.near_permutations)
    drops |= exact | near
    context.say(f"{len(exact)} exact and {len(near)} near copies dropped")
    return [verdict for verdict in kept if verdict.path not in drops]


def _compile(
    context: StageContext,
    params: FilterParams,
    kept: Sequence[Verdict],
    tasks: Sequence[Task],
    raw: Path,
    drops: dict[str, Drop],
) -> dict[str, str]:
    """By path, what rustc said; with ``require`` a file that is wrong by itself is dropped."""
    if params.compile == "off":
        return {}
    targets = {task.path: task.target for task in tasks}
    editions = {v.package: compiling.Editions(raw / rows.PACKAGES_FOLDER / v.package, params.edition) for v in kept}
    questions = [compiling.Question(targets[v.path], editions[v.package].of(check.folder_of(v.path))) for v in kept]
    said: dict[str, str] = {}
    answers = compiling.check(context.sandbox, questions, workers=context.workers)
    for number, (verdict, (status, detail)) in enumerate(zip(kept, answers, strict=True), 1):
        said[verdict.path] = status
        if params.compile == "require" and status in ("error", "timeout"):
            drops[verdict.path] = Drop("compile", detail)
        context.progress(number, len(kept), "compiled files")
    context.say("rustc: " + ", ".join(f"{count} {status}" for status, count in sorted(Counter(said.values()).items())))
    return said


def _lay_out(
    context: StageContext, kept: Sequence[Verdict], tasks: Sequence[Task], compiled: Mapping[str, str]
) -> None:
    """The normalised files to their places, and their rows."""
    targets = {task.path: task.target for task in tasks}
    for verdict in kept:
        place = context.output / rows.FILES_FOLDER / verdict.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(targets[verdict.path], place)
    jsonl.write(
        context.output / rows.FILES,
        (
            rows.row(FileRow(v.path, v.package, v.sha256, v.num_bytes, v.lines, v.license, compiled.get(v.path, "")))
            for v in kept
        ),
    )


def _write(
    context: StageContext,
    packages: Sequence[PackageRow],
    verdicts: Sequence[Verdict],
    kept: Sequence[Verdict],
    drops: Mapping[str, Drop],
    compiled: Mapping[str, str],
    rulings: Mapping[str, PackageLicenses],
) -> StageResult:
    package_of = {verdict.path: verdict.package for verdict in verdicts}
    jsonl.write(
        context.output / rows.REJECTIONS,
        (rows.row(RejectionRow(p, package_of[p], drops[p].rule, drops[p].detail)) for p in sorted(drops)),
    )
    jsonl.write(context.output / rows.PACKAGES, map(rows.row, packages))
    jsonl.write(context.output / LICENSES, _license_rows(verdicts, rulings))
    (context.output / REPORT).write_bytes(canonical_lines(_report(verdicts, kept, drops, compiled)))
    context.say(f"kept {len(kept)} of {len(verdicts)} files; dropped: {_summary(drops)}")
    return StageResult(
        counts={
            "files": len(kept),
            "bytes": sum(v.num_bytes for v in kept),
            "lines": sum(v.lines for v in kept),
            "packages": len({v.package for v in kept}),
            "rejected_files": len(drops),
            "rejected_bytes": sum(v.raw_bytes for v in verdicts if v.path in drops),
            "normalised_files": sum(v.changed for v in kept),
        }
    )


def _license_rows(verdicts: Sequence[Verdict], rulings: Mapping[str, PackageLicenses]) -> list[dict[str, Any]]:
    """The evidence, by package and folder."""
    folders = sorted({(verdict.package, check.folder_of(verdict.path)) for verdict in verdicts})
    found = [(package, folder, rulings[package].ruling(folder)) for package, folder in folders]
    return [
        {
            "package": package,
            "folder": folder,
            "license": ruling.license,
            "evidence": ruling.evidence,
            "verdict": ruling.drop.detail if ruling.drop else "allowed",
        }
        for package, folder, ruling in found
    ]


def _report(
    verdicts: Sequence[Verdict], kept: Sequence[Verdict], drops: Mapping[str, Drop], compiled: Mapping[str, str]
) -> dict[str, Any]:
    by_rule: dict[str, dict[str, int]] = defaultdict(lambda: {"files": 0, "bytes": 0})
    for verdict in verdicts:
        if verdict.path in drops:
            by_rule[drops[verdict.path].rule]["files"] += 1
            by_rule[drops[verdict.path].rule]["bytes"] += verdict.raw_bytes
    packages: dict[str, dict[str, int]] = defaultdict(lambda: {"files": 0, "bytes": 0})
    for verdict in kept:
        packages[verdict.package]["files"] += 1
        packages[verdict.package]["bytes"] += verdict.num_bytes
    return {
        "format": FORMAT,
        "read": {"files": len(verdicts), "bytes": sum(v.raw_bytes for v in verdicts)},
        "kept": {"files": len(kept), "bytes": sum(v.num_bytes for v in kept)},
        "rejected": dict(by_rule),
        "packages": dict(packages),
        "licenses": dict(Counter(v.license for v in kept)),
        "normalised": sum(v.changed for v in kept),
        "compile": dict(Counter(compiled.values())),
    }


def _summary(drops: Mapping[str, Drop]) -> str:
    counts = Counter(drop.rule for drop in drops.values())
    return ", ".join(f"{rule} {count}" for rule, count in counts.most_common()) or "none"
