"""A pipeline as its file says it: ``ci/pipelines/<name>.toml``, parsed from bytes and checked to the last key.

::

    format = 1
    name = "rust"              # of every artifact it makes
    dial = 1                   # one size that sets the rest
    seed = 0
    threads = 2                # of stages whose bits depend on it (training); not how many workers a run uses
    use = ["crawl", "filter"]  # which of the nine; left out: all

    [stage.tokenizer]          # parameters that differ from what the dial sets; "seed" for this stage alone
    vocab_size = 4096

    [[stages]]                 # a stage of the workspace's own: a command that gets step.json as its last argument
    name = "count"
    command = ["python", "tools/count.py"]
    reads = ["raw"]
    makes = "metrics"          # left out: it leaves evidence only
    artifact = "rust-count"    # left out: the pipeline's name
    code = ["tools/count.py"]  # files and folders of the commit that are its code; the command runs beside them
    libraries = []             # distributions that its Python has, with what they require; and
    tools = []                 # programs that it has besides the system's (on main alone): of both the version counts
    checkpoints = false        # true: it offers checkpoints, and reads the answers on its standard input

    [stages.needs]             # what it may do beyond the sandbox; counts on main alone (``rights``)
    network = true             # this machine's
    read = ["/data/corpus"]    # folders and files of this machine
    write = ["/data/outbox"]   # folders of this machine
    memory_mb = 4096           # these three are what it has without a word
    disk_mb = 32768            # of its output and scratch folders
    time_s = 3600

Not here: what the steps depend on (``plan``), and what a parameter may be (each stage's ``resolve``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.config.dial import check_dial
from workbench.domain.errors import NotFound, UserError, WorkbenchError
from workbench.domain.ids import ObjectId
from workbench.domain.reading import parse_toml, read_or_tell
from workbench.domain.refs import Kind, check_name
from workbench.domain.stage import Needs, Params, StageSpec
from workbench.pipeline.nearest import did_you_mean
from workbench.ports.store import Objects

FORMAT = 1
FOLDER = "ci/pipelines"
_TOP = ("format", "name", "dial", "seed", "threads", "use", "stage", "stages")
_OWN = ("name", "command", "reads", "makes", "artifact", "code", "libraries", "tools", "checkpoints", "needs")
_NEEDS = {"memory_mb": 1 << 24, "disk_mb": 1 << 26, "time_s": 90 * 86400}  # and the most that each may be
_TAKEN = ("/in", "/out", "/proc", "/dev", "/sys")  # places that the sandbox has of its own


@dataclass(frozen=True)
class StageUse:
    """A stage in this pipeline: its parameters are complete, and its artifact has a name."""

    spec: StageSpec
    artifact: str
    params: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class Definition:
    """A pipeline, its stages in an order in which each can run."""

    name: str
    dial: int
    seed: int
    threads: int
    stages: tuple[StageUse, ...]
    path: str

    @property
    def file(self) -> str:
        """What its file is called: by this it is loaded again. Its artifacts may have another name."""
        return self.path.rsplit("/", 1)[-1].removesuffix(".toml")

    def stage(self, name: str) -> StageUse:
        """NotFound, with the nearest name, when the pipeline has no such stage."""
        for use in self.stages:
            if use.spec.name == name:
                return use
        names = [use.spec.name for use in self.stages]
        raise NotFound(f"{self.path} has no stage {name!r}", did_you_mean(name, names))


def path_of(name: str) -> str:
    return f"{FOLDER}/{check_name(name, 'pipeline name')}.toml"


def names_in(objects: Objects, commit: ObjectId) -> tuple[str, ...]:
    """The pipelines that a commit defines."""
    if objects.entry(commit, FOLDER) is None:
        return ()
    names = (entry.path.rsplit("/", 1)[-1] for entry in objects.list(commit, FOLDER))
    return tuple(sorted(name[:-5] for name in names if name.endswith(".toml")))


def load(objects: Objects, commit: ObjectId, name: str, specs: Sequence[StageSpec]) -> Definition:
    """The pipeline ``name`` as ``commit`` defines it."""
    path = path_of(name)
    if objects.entry(commit, path) is None:
        raise NotFound(f"no pipeline {name!r} in {commit[:10]}", did_you_mean(name, names_in(objects, commit)))
    return parse(objects.read_file(commit, path), path, specs)


def parse(data: bytes, path: str, specs: Sequence[StageSpec]) -> Definition:
    """Check every key and value; UserError names the file and the nearest right one."""
    raw = _toml(data, path)
    _known(raw, _TOP, path)
    if raw.get("format") != FORMAT or raw.get("format") is True:
        raise UserError(f"{path}: format is {raw.get('format')!r}", f"write `format = {FORMAT}` as its first line")
    name = check_name(_text(raw, "name", path, path.rsplit("/", 1)[-1].removesuffix(".toml")), f"name in {path}")
    dial, seed = _dial(raw, path), _number(raw, "seed", path, 0, 0)
    own = [_own_stage(item, path, name) for item in _tables(raw, path)]
    _check_own(own, specs, name, path)
    chosen = [*_chosen(raw, path, specs), *(spec for spec, _ in own)]
    artifacts = {spec.name: artifact for spec, artifact in own}
    _unique(chosen, artifacts, name, path)
    sections = _table(raw, "stage", path)
    _known(sections, [spec.name for spec in chosen], f"{path}: [stage]")
    uses = []
    for spec in chosen:
        given = dict(_table(sections, spec.name, f"{path}: [stage]"))
        own_seed = _number(given, "seed", f"{path}: [stage.{spec.name}]", seed, 0)
        given.pop("seed", None)
        params = _resolve(spec, dial, given, path)
        uses.append(StageUse(spec, artifacts.get(spec.name, name), params, own_seed))
    _check_fits(uses, path)
    threads = _number(raw, "threads", path, 2, 1)
    return Definition(name, dial, seed, threads, _in_order(uses, name, path), path)


def _toml(data: bytes, path: str) -> dict[str, Any]:
    hint = "use text, whole and decimal numbers, true and false, arrays and tables; no dates, no nan"
    return read_or_tell(lambda: parse_toml(data), what=path, error=UserError, hint=hint)


def _known(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for key in table:
        if key not in names:
            raise UserError(f"{where} has an unknown key {key!r}", did_you_mean(key, names))


def _text(table: Mapping[str, Any], key: str, where: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {key} is {value!r}", f'write {key} = "some text"')
    return value


def _number(table: Mapping[str, Any], key: str, where: str, default: int, least: int) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
        raise UserError(f"{where}: {key} is {value!r}", f"write a whole number of at least {least}")
    return value


def _dial(raw: Mapping[str, Any], path: str) -> int:
    try:
        return check_dial(_number(raw, "dial", path, 1, 0))
    except UserError as error:
        raise UserError(error.what if path in error.what else f"{path}: {error.what}", error.hint) from None


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item and "\0" not in item for item in value):
        raise UserError(f"{where}: {key} is {value!r}", f'write {key} = ["some text", "more text"]')
    return tuple(value)


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} is not a table", f"write its keys below a line [stage.{key}]")
    return value


def _tables(raw: Mapping[str, Any], path: str) -> Sequence[Mapping[str, Any]]:
    value = raw.get("stages", [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{path}: stages is not an array of tables", "begin each of your own stages with [[stages]]")
    return value


def _chosen(raw: Mapping[str, Any], path: str, specs: Sequence[StageSpec]) -> Sequence[StageSpec]:
    if "use" not in raw:
        return specs
    wanted = _texts(raw, "use", path)
    names = [spec.name for spec in specs]
    for name in wanted:
        if name not in names:
            raise UserError(f"{path}: use names an unknown stage {name!r}", did_you_mean(name, names))
    return [spec for spec in specs if spec.name in wanted]


def _own_stage(raw: Mapping[str, Any], path: str, pipeline: str) -> tuple[StageSpec, str]:
    where = f"{path}: [[stages]] {raw.get('name', '')}".rstrip()
    _known(raw, _OWN, where)
    name = check_name(_text(raw, "name", where, ""), f"stage name in {path}")
    command = _texts(raw, "command", where)
    if not command:
        raise UserError(f"{where} has no command", 'write command = ["program", "argument"]')
    checkpoints = raw.get("checkpoints", False)
    if not isinstance(checkpoints, bool):
        raise UserError(f"{where}: checkpoints is {checkpoints!r}", "write true or false")
    spec = StageSpec(
        name=name,
        reads=tuple(dict.fromkeys(_kind(kind, where) for kind in _texts(raw, "reads", where))),
        makes=_kind(_text(raw, "makes", where, ""), where) if "makes" in raw else None,
        resolve=_as_given,
        libraries=_texts(raw, "libraries", where),
        tools=tuple(_program(tool, where) for tool in _texts(raw, "tools", where)),
        checkpoints=checkpoints,
        command=command,
        code_paths=tuple(_inside(code, where) for code in _texts(raw, "code", where)),
        needs=_needs(_table(raw, "needs", where), f"{where} needs"),
    )
    return spec, check_name(_text(raw, "artifact", where, pipeline), f"artifact name in {path}")


def _needs(raw: Mapping[str, Any], where: str) -> Needs:
    _known(raw, ("read", "write", "network", *_NEEDS), where)
    network = raw.get("network", False)
    if not isinstance(network, bool):
        raise UserError(f"{where}: network is {network!r}", "write true or false")
    numbers = {name: _number(raw, name, where, 0, 1) if name in raw else 0 for name in _NEEDS}
    for name, most in _NEEDS.items():
        if numbers[name] > most:
            raise UserError(f"{where}: {name} is {numbers[name]}", f"write at most {most}")
    read, write = (tuple(_place(path, where) for path in _texts(raw, name, where)) for name in ("read", "write"))
    return Needs(read, write, network, **numbers)


def _place(path: str, where: str) -> str:
    """A path of the machine, as it is."""
    parts = path.split("/")
    if parts[0] or any(part in ("", ".", "..") for part in parts[1:]) or not path.isprintable():
        raise UserError(f"{where}: {path!r} is no place of a machine", 'write a whole path, such as "/data/corpus"')
    if any(path == taken or path.startswith(f"{taken}/") for taken in _TAKEN):
        raise UserError(f"{where}: {path} is a place that the sandbox has of its own", "choose a folder elsewhere")
    return path


def _check_own(own: Sequence[tuple[StageSpec, str]], specs: Sequence[StageSpec], name: str, path: str) -> None:
    for spec, artifact in own:
        if any(spec.name == other.name for other in specs):
            raise UserError(
                f"{path}: [[stages]] {spec.name} has the name of a stage of the workbench",
                "choose another: records and artifacts tell stages by their names",
            )
        if spec.makes in spec.reads and artifact == name:
            raise UserError(
                f"{path}: {spec.name} reads {spec.makes}/{name} and makes it, and so would never come to rest",
                'give what it makes a name of its own: artifact = "…"',
            )


def _kind(text: str, where: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        raise UserError(f"{where}: no artifact kind {text!r}", did_you_mean(text, [*Kind])) from None


def _inside(path: str, where: str) -> str:
    if path.startswith("/") or not all(part not in ("", ".", "..") for part in path.split("/")):
        raise UserError(
            f"{where}: code path {path!r} leaves the workspace", "give paths relative to the workspace's top"
        )
    return path


def _as_given(dial: int, given: Params) -> dict[str, Any]:
    return dict(given)


def _resolve(spec: StageSpec, dial: int, given: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    try:
        params = spec.resolve(dial, given)
    except WorkbenchError as error:
        raise UserError(f"{path}: [stage.{spec.name}] {error.what}", error.hint) from None
    # The key and step.json see the same value: what JSON makes of it.
    plain: Mapping[str, Any] = json.loads(json.dumps(params, allow_nan=False))
    return plain


def _check_fits(uses: Sequence[StageUse], path: str) -> None:
    """Sizes that do not go together are refused before anything runs, not after an hour of training."""
    params = {use.spec.name: use.params for use in uses}
    for use in uses:
        if use.spec.fits is not None:
            try:
                use.spec.fits(params)
            except UserError as error:
                raise UserError(f"{path}: [stage.{use.spec.name}] {error.what}", error.hint) from None


def _program(name: str, where: str) -> str:
    """The name of a program of this machine. A plan asks it for its version, so it is never a file of the workspace."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", name):
        raise UserError(f"{where}: tools names {name!r}, which is no program on PATH", 'write its name: tools = ["cc"]')
    return name


def _unique(specs: Sequence[StageSpec], artifacts: Mapping[str, str], name: str, path: str) -> None:
    stages: set[str] = set()
    made: dict[tuple[Kind, str], str] = {}
    for spec in specs:
        if spec.name in stages:
            raise UserError(f"{path} has two stages {spec.name!r}", "rename your own, or leave the other out of `use`")
        stages.add(spec.name)
        if spec.makes is None:
            continue
        target = (spec.makes, artifacts.get(spec.name, name))
        if target in made:
            raise UserError(
                f"{path}: {made[target]} and {spec.name} both make {spec.makes}/{target[1]}",
                'give your own stage another name for what it makes: artifact = "…"; or leave the other out of `use`',
            )
        made[target] = spec.name


def _in_order(uses: Sequence[StageUse], name: str, path: str) -> tuple[StageUse, ...]:
    """Stages after those that make what they read; otherwise as they stand in the file."""
    makers = {use.spec.makes: use.spec.name for use in uses if use.spec.makes is not None and use.artifact == name}
    waiting, done, ordered = list(uses), set[str](), []
    while waiting:
        for use in waiting:
            needs = {makers[kind] for kind in use.spec.reads if kind in makers and kind != use.spec.makes}
            if needs <= done:
                break
        else:
            names = ", ".join(use.spec.name for use in waiting)
            raise UserError(f"{path}: {names} wait for each other", "let none read what is made after it")
        waiting.remove(use)
        done.add(use.spec.name)
        ordered.append(use)
    return tuple(ordered)
