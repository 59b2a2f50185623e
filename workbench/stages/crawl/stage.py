"""S1 crawl: fetch every source of the list, in parallel, and write down who they are and what was refused.

The payload depends on the sources alone: not on the order they arrive in, the time or the host. With an input
``recorded`` (the payload of an earlier crawl) nothing is fetched: the same bytes are laid out again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from workbench.config.params import resolve_params
from workbench.corpus import jsonl, rows
from workbench.corpus.rows import PackageRow, RefusalRow
from workbench.domain.errors import UserError
from workbench.domain.stage import StageResult
from workbench.ports.fetch import Fetcher
from workbench.ports.work import StageContext
from workbench.stages.crawl import licenses
from workbench.stages.crawl.params import WANTED, CrawlParams, SourceParams
from workbench.stages.crawl.recorded import RecordedFetcher

PARALLEL = 4  # sources at a time: they wait for the network more than for us


@dataclass(frozen=True)
class Crawled:
    package: PackageRow
    refusals: tuple[RefusalRow, ...]
    rust_bytes: int
    rust_files: int


def run(context: StageContext) -> StageResult:
    asked = resolve_params(CrawlParams, context.params, stage="crawl")
    fetcher: Fetcher = RecordedFetcher(context.inputs["recorded"]) if "recorded" in context.inputs else context.fetcher
    folder = context.output / rows.PACKAGES_FOLDER
    folder.mkdir()
    crawled = sorted(_crawl_all(context, fetcher, asked.sources, folder), key=lambda each: each.package.package)
    jsonl.write(context.output / rows.PACKAGES, (rows.row(each.package) for each in crawled))
    refusals = [refusal for each in crawled for refusal in each.refusals]
    jsonl.write(context.output / rows.REFUSALS, map(rows.row, refusals))
    if not any(each.rust_files for each in crawled):
        raise UserError("no source holds a Rust file", "see the refusals above, and choose other sources")
    return StageResult(
        counts={
            "packages": len(crawled),
            "files": sum(each.package.files for each in crawled),
            "rust_files": sum(each.rust_files for each in crawled),
            "rust_bytes": sum(each.rust_bytes for each in crawled),
            "refusals": len(refusals),
        }
    )


def _crawl_all(context: StageContext, fetcher: Fetcher, sources: Sequence[SourceParams], folder: Path) -> list[Crawled]:
    done: list[Crawled] = []
    with ThreadPoolExecutor(min(PARALLEL, len(sources))) as pool:
        waiting = [
            pool.submit(_crawl, fetcher, source, context.scratch / f"source-{i}", folder)
            for i, source in enumerate(sources)
        ]
        try:
            for future in as_completed(waiting):
                each = future.result()
                done.append(each)
                _tell(context, each)
                context.progress(len(done), len(sources), "sources", MB=sum(d.rust_bytes for d in done) / 1e6)
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    return done


def _crawl(fetcher: Fetcher, source: SourceParams, scratch: Path, folder: Path) -> Crawled:
    into = scratch / "files"
    into.mkdir(parents=True)
    fetched = fetcher.fetch(source.source(), into, wanted=WANTED)
    files = sorted(fetched.files)
    rust = [path for path in files if path.endswith(".rs")]
    package = PackageRow(
        package=source.package,
        name=source.name,
        version=source.version,
        kind=source.kind,
        license=licenses.declared(into),
        sha256=str(fetched.provenance.get("sha256", "")),
        size=int(fetched.provenance.get("size", 0)),
        commit=str(fetched.provenance.get("commit", "")),
        files=len(files),
        license_files=licenses.license_files(files),
    )
    rust_bytes = sum((into / path).stat().st_size for path in rust)
    if files:
        _remove_empty_folders(into)
        shutil.move(into, folder / source.package)
    refused = sorted(fetched.refusals, key=lambda r: (r.path, r.rule, r.detail))
    refusals = tuple(RefusalRow(source.package, r.path, r.rule, r.detail) for r in refused)
    return Crawled(package, refusals, rust_bytes, len(rust))


def _tell(context: StageContext, each: Crawled) -> None:
    license = each.package.license or "no licence declared"
    context.say(f"{each.package.package}: {each.rust_files} Rust files, {each.rust_bytes / 1e6:.1f} MB, {license}")
    for refusal in each.refusals:
        context.say(f"  refused {refusal.path or 'the whole source'}: {refusal.rule} {refusal.detail}".rstrip())


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        if folder != str(root) and not os.listdir(folder):
            os.rmdir(folder)
