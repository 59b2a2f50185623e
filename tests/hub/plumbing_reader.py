"""Reads a hub as anybody can who knows workbench/docs/formats.md: git's plumbing and the standard library, nothing of
workbench. ``python plumbing_reader.py HUB`` prints what it found as JSON; what is not as the page says ends it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zlib
from typing import Any

HUB = ""
ZERO = "0" * 40


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", f"--git-dir={HUB}", *arguments], check=True, capture_output=True).stdout


def refs(prefix: str) -> dict[str, str]:
    listed = git("for-each-ref", "--format=%(refname) %(objecttype) %(objectname)", prefix).decode().splitlines()
    return {ref: id for ref, _, id in (line.split(" ") for line in listed)}


def tree(name: str) -> dict[str, str]:
    """Blobs by path, in Git's order."""
    lines = git("ls-tree", "-r", "-z", "--full-tree", name).decode().split("\0")[:-1]
    return {path: what.split()[2] for what, path in (line.split("\t", 1) for line in lines)}


def blob(id: str) -> bytes:
    return git("cat-file", "blob", id)


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def indented(data: bytes) -> Any:
    """Canonical JSON, indented."""
    value = json.loads(data)
    assert json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n" == data
    return value


def fields(value: dict[str, Any], names: str, maybe: str = "") -> dict[str, Any]:
    assert set(names.split()) <= set(value) <= {*names.split(), *maybe.split()}, sorted(value)
    return value


def of_format(value: dict[str, Any], number: int = 1) -> dict[str, Any]:
    assert value["format"] == number
    return value


def trailers(commit: str) -> list[tuple[str, str]]:
    lines = git("log", "-1", "--format=%(trailers:only,unfold)", commit).decode().splitlines()
    return [(key, value) for key, _, value in (line.partition(": ") for line in lines if line)]


def parents(commit: str) -> list[str]:
    return git("log", "-1", "--format=%P", commit).decode().split()


def contents(blobs: dict[str, str], path: str, chunks: int) -> bytes:
    """A payload file, put together again."""
    if not chunks:
        return blob(blobs[path])
    names = [f"{path}/{n // 1000:02d}/{n % 1000:03d}" for n in range(chunks)]
    assert [name for name in blobs if name.startswith(f"{path}/")] == names
    return b"".join(blob(blobs[name]) for name in names)


def artifact(ref: str, tag: str) -> dict[str, Any]:
    assert git("cat-file", "-t", tag).strip() == b"tag"
    short = ref.removeprefix("refs/tags/")
    assert f"tag {short}\n".encode() in git("cat-file", "tag", tag)
    commit = git("rev-parse", f"{tag}^{{commit}}").decode().strip()
    assert parents(commit) == []
    blobs = tree(commit)
    names = "format kind name files inputs params seed stage code environment action_key counts metrics"
    manifest = of_format(fields(indented(blob(blobs["manifest.json"])), names))
    assert short.rpartition("/")[0] == f"{manifest['kind']}/{manifest['name']}"
    assert [file["path"] for file in manifest["files"]] == sorted(file["path"] for file in manifest["files"])
    expected = ["manifest.json"]
    for file in manifest["files"]:
        fields(file, "path sha256 size", "chunks")
        data = contents(blobs, f"payload/{file['path']}", file.get("chunks", 0))
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["size"])
        assert ("chunks" in file) == (len(data) > 8 << 20)
        above = f"payload/{file['path']}"
        expected += [path for path in blobs if path == above or (file.get("chunks") and path.startswith(above + "/"))]
    assert sorted(expected) == sorted(blobs), "every blob is listed"
    for entry in manifest["inputs"]:
        fields(entry, "kind name tree")
    said = trailers(commit)
    assert {key for key, _ in said} <= {"Input", "Source", "Run"}
    for value in (value for key, value in said if key == "Input"):
        name, input_commit = value.split(" ")
        its_tree = git("rev-parse", f"{input_commit}^{{tree}}").decode().strip()
        kind, short_name, _ = name.split("/")
        assert {"kind": kind, "name": short_name, "tree": its_tree} in manifest["inputs"]
    return {"manifest": manifest, "tree": git("rev-parse", f"{commit}^{{tree}}").decode().strip(), "commit": commit}


EVIDENCE = {
    "init": "stands", "push": "pusher options run work found error",
    "publish": "artifact tree key", "import": "artifact tree incoming",
    "pin": "release tree version reasons", "promote": "run", "undo": "undoes",
    "unbundle": "origin ledger counter incoming",
    "trust": "incoming artifact tree", "discard": "incoming", "rename": "",
    "handled": "upto run state error stands", "delete": "",
}  # fmt: skip


def ledger() -> list[dict[str, Any]]:
    """Oldest first."""
    entries: list[dict[str, Any]] = []
    (at,) = refs("refs/workbench/ledger").values()
    while at:
        blobs = tree(at)
        assert list(blobs) == ["entry.json"]
        entry = fields(indented(blob(blobs["entry.json"])), "format counter action moves who why time_ms evidence")
        of_format(entry)
        assert trailers(at) == [("Counter", str(entry["counter"]))]
        assert set(entry["evidence"]) <= set(EVIDENCE[entry["action"]].split()), entry
        for move in entry["moves"]:
            fields(move, "ref old new")
            assert re.fullmatch("[0-9a-f]{40} [0-9a-f]{40}", f"{move['old']} {move['new']}")
        entries.insert(0, entry)
        at = next(iter(parents(at)), "")
    assert [entry["counter"] for entry in entries] == list(range(1, len(entries) + 1))
    return entries


def run_cache() -> dict[str, Any]:
    blobs = tree("refs/workbench/cache")
    found = {path.rpartition("/")[2]: path for path in blobs if not path.startswith("last/")}
    entries = {}
    for key, path in found.items():
        assert path == f"{key[:2]}/{key}"
        entry = fields(indented(blob(blobs[path])), "artifact tree commit parts", "result")
        of_format(fields(entry["parts"], "format stage name makes code params seed inputs environment"), 2)
        assert hashlib.sha256(compact(entry["parts"])).hexdigest() == key
        assert ("result" in entry) == (entry["artifact"] == "")
        entries[key] = entry
    last = {path.removeprefix("last/"): blob(id).decode() for path, id in blobs.items() if path.startswith("last/")}
    assert all(text.endswith("\n") and text.strip() in entries for text in last.values())
    return {"entries": entries, "last": {name: text.strip() for name, text in last.items()}}


STATES = "queued running succeeded failed cancelled abandoned"


def run(ref: str, commit: str) -> dict[str, Any]:
    assert parents(commit) == []
    blobs = tree(commit)
    names = "format id kind subject source trigger state steps options created_ms started_ms ended_ms host pid error"
    record = of_format(fields(indented(blob(blobs["run.json"])), names))
    assert ref == f"refs/workbench/runs/{record['id']}"
    assert record["state"] in STATES.split()
    assert record["kind"] in ("pipeline", "tier", "push")
    for step in record["steps"]:
        fields(step, "stage state why action_key artifact started_ms ended_ms error rates")
        assert step["state"] in [*STATES.split(), "reused", "skipped"]
    assert set(record["options"]) <= {
        "skip",
        "tier",
        "variables",
        "stages",
        "force",
        "bump",
        "promote",
        "mode",
        "pipeline",
        "runs",
    }
    if "mode" in record["options"]:
        fields(record["options"]["mode"], "only start force bumps")
    stages = [step["stage"] for step in record["steps"]]
    checkpoints = {}
    for path in blobs:
        top, _, rest = path.partition("/")
        assert path in ("run.json", "events.jsonl") or top in ("log", "checkpoint"), path
        assert top != "log" or rest.removesuffix(".txt") in stages
        if top == "checkpoint" and rest.endswith("/files.json") and rest.count("/") == 1:
            checkpoints[rest.partition("/")[0]] = checkpoint(blobs, f"checkpoint/{rest.partition('/')[0]}")
    events = [json.loads(line) for line in blob(blobs["events.jsonl"]).splitlines()] if "events.jsonl" in blobs else []
    return {"record": record, "events": [event["event"] for event in events], "checkpoints": checkpoints}


def checkpoint(blobs: dict[str, str], path: str) -> dict[str, int]:
    """The sizes of its files."""
    listing = of_format(fields(json.loads(blob(blobs[f"{path}/files.json"])), "format files"))
    of_format(fields(json.loads(blob(blobs[f"{path}.json"])), "format action_key"))
    for name, sha256, size, chunks in listing["files"]:
        data = contents(blobs, f"{path}/payload/{name}", chunks)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (sha256, size)
    return {name: size for name, _, size, _ in listing["files"]}


def journal(ref: str) -> list[Any]:
    blobs = tree(ref)
    assert blob(blobs.pop("format")) == b"1\n"
    records: list[Any] = []
    for path, id in sorted(blobs.items()):
        segment = re.fullmatch(r"(\d{6})/(\d{12})-(\d{12})", path)
        assert segment, path
        folder, first, last = map(int, segment.groups())
        assert folder == first // 1_000_000
        assert first == len(records)
        for line in blob(id).decode().split("\n")[:-1]:
            number, crc, text = line.split(" ", 2)
            assert int(number) == len(records)
            assert crc == f"{zlib.crc32(text.encode()):08x}"
            assert compact(json.loads(text)) == text.encode()
            records.append(json.loads(text))
        assert last == len(records) - 1
    for older in git("log", "--format=%H", ref).decode().split()[1:]:
        assert tree(older).items() <= tree(ref).items(), "nothing that was sealed changes"
    return records


def main() -> None:
    kinds = ["raw", "filtered", "dataset", "tokenizer", "shards", "model", "metrics", "release"]
    tags = {r: i for r, i in refs("refs/tags/").items() if r.split("/")[2] in kinds}
    found = {
        "artifacts": {ref.removeprefix("refs/tags/"): artifact(ref, id) for ref, id in tags.items()},
        "ledger": ledger(),
        "run_cache": run_cache(),
        "runs": {ref.rpartition("/")[2]: run(ref, id) for ref, id in refs("refs/workbench/runs/").items()},
        "journals": {ref.rpartition("/")[2]: journal(ref) for ref in refs("refs/workbench/journal/")},
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    HUB = sys.argv[1]
    main()
