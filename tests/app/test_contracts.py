"""The contract of a commit: computed in the sandbox, whatever its code does, and recorded; readers run nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.app import contracts, wiring
from workbench.app.contracts import contract_of
from workbench.app.template import template_files
from workbench.domain.contract import ContractRecord
from workbench.domain.errors import NotFound, ToolMissing, WorldError
from workbench.domain.ids import EMPTY_TREE, ObjectId
from workbench.domain.refs import CONTRACTS
from workbench.ports.sandbox import Job, Outcome, SandboxResult
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

WHO = "A <a@example.com>"
TOOL = b"from workbench.sdk import tool\n\n@tool()\ndef hello(name: str) -> str:\n    return name\n"
Commit = Callable[[dict[str, bytes]], ObjectId]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitRepository]:
    if missing := wiring.sandbox().probe():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("contracts") / "hub.git"
    init_hub(folder)
    with GitRepository(folder) as made:
        yield made


@pytest.fixture
def commit(repository: GitRepository) -> Commit:
    """A commit with these files of agents/ alone."""

    def make(files: dict[str, bytes]) -> ObjectId:
        tree = repository.objects.add_tree(EMPTY_TREE, {f"agents/{path}": data for path, data in files.items()})
        return repository.objects.add_commit(tree, parents=(), message="c\n", who=WHO, time_ms=1000)

    return make


def test_the_contract_of_the_template_is_computed_once_and_recorded(repository: GitRepository) -> None:
    tree = repository.objects.add_tree(EMPTY_TREE, dict(template_files()))
    made = repository.objects.add_commit(tree, parents=(), message="start\n", who=WHO, time_ms=1000)
    assert contracts.contract_of(repository, made).contract is not None
    first = repository.refs.get(str(CONTRACTS))
    record = contract_of(repository, made, sandbox=Broken())  # it is not asked
    assert repository.refs.get(str(CONTRACTS)) == first
    assert record.contract is not None
    assert list(record.contract["tools"]) == ["complete", "fill_in_middle", "search"]
    assert set(record.made_by) == {"python", "pydantic", "workbench"}
    assert repository.contracts.get(record.tree) == record
    assert f"agents@{record.tree}" not in sys.modules


def test_what_other_libraries_made_is_computed_anew(repository: GitRepository, commit: Commit) -> None:
    made = commit({"a.py": TOOL})
    record = contract_of(repository, made)
    repository.contracts.put(ContractRecord(record.tree, {**record.made_by, "pydantic": "1.0.0"}, None, "old"))
    assert contract_of(repository, made) == record == repository.contracts.get(record.tree)


def test_what_had_none_is_tried_again_by_who_relies_on_it(repository: GitRepository, commit: Commit) -> None:
    made = commit({"a.py": TOOL + b"\n"})
    record = contract_of(repository, made)
    none = ContractRecord(record.tree, record.made_by, None, "the machine was slow that day")
    repository.contracts.put(none)
    assert contract_of(repository, made) == none
    assert contract_of(repository, made, again=True) == record


def test_files_and_imports_of_agents_are_there_inside(repository: GitRepository, commit: Commit) -> None:
    code = (
        b"from importlib.resources import files\nfrom typing import Literal\nfrom agents.words import WORD\n" + TOOL +
        b"NAMES = files(__package__).joinpath('data/names.txt').read_text()\n"
        b"hello.__annotations__['name'] = 'Literal[NAMES, WORD]'\n"
    )  # fmt: skip
    found = contract_of(repository, commit({"a.py": code, "words.py": b"WORD = 'w'\n", "data/names.txt": "é".encode()}))
    assert found.contract is not None, found.why
    assert found.contract["tools"]["hello"]["input"]["properties"]["name"]["enum"] == ["é", "w"]


FORGED = b"import os\nfor fd in range(3, 20):\n    try: os.write(fd, %r)\n    except OSError: pass\nos._exit(0)\n"
FORGE = {
    "no JSON": (b"{", "is no contract: not JSON"),
    "another format": (b'{"format": 7}', "is no contract: format 7"),
    "wrong types": (b'{"format":1,"contract":{"format":1,"tools":[]},"why":""}', "is not an object"),
    "a schema of lists": (
        b'{"format":1,"contract":{"format":1,"tools":{"a":{"input":{"properties":[]},"output":{}}}},"why":""}',
        "properties: a list of 0 is not an object",
    ),
    "bounds that do not compare": (
        b'{"format":1,"contract":{"format":1,"tools":{"a":{"input":{"minimum":"x"},"output":{}}}},"why":""}',
        "input.minimum: 'x' is not a number",
    ),
    "an escape in a name": (
        b'{"format":1,"contract":{"format":1,"tools":{"\\u001b[2J":{"input":{},"output":{}}}},"why":""}',
        "is not a tool's name",
    ),
    "a lone surrogate": (b'{"format":1,"contract":null,"why":"\\ud800"}', "half a character"),
    "a reason that no terminal wants": (b'{"format":1,"contract":null,"why":"a\\u001b]0;b\\u0007c\\nd"}', "a ]0;b c d"),
    "no reason": (b'{"format":1,"contract":null,"why":""}', "does not say why"),
    "a bottomless value": (b"[" * 90_000, "nested deeper"),
    "a number without end": (b'{"format":' + b"9" * 5000 + b"}", "more than 64 characters"),
    "nothing": (b"", "ended the process while it was loaded (exit code 0)"),
}
HOSTILE = {
    "an endless loop": (b"while True: pass\n", "more than 10 s of processor time|took more than 30 s"),
    "an exit": (b"import os\nos._exit(0)\n", "ended the process while it was loaded (exit code 0)"),
    "an exit with a code": (b"import os\nos._exit(3)\n", "exit code 3"),
    "an exception": (b"x = 1\nraise RuntimeError('no\\x1b[31m')\n", "bad.py, line 2: RuntimeError: no [31m"),
    "sys.exit": (b"import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
    "an interrupt": (b"raise KeyboardInterrupt\n", "crashed the process (signal 2)"),
    "an answer without end": (b"import os\nfor _ in range(99): os.write(3, b'x' * (1 << 20))\n" + TOOL, "too long"),
    "a syntax error": (b"def (\n", "bad.py, line 1: invalid syntax"),
    "a memory bomb": (b"x = []\nwhile True: x.append(bytearray(1 << 24))\n", "memory|MemoryError"),
    "a null pointer": (b"import ctypes\nctypes.string_at(0)\n", "crashed the process (signal 11)"),
    "a gigabyte of print": (b"import os\nfor _ in range(1 << 10): os.write(1, b'x' * (1 << 20))\n" + TOOL, ""),
    "a broken pydantic": (b"import pydantic\npydantic.BaseModel = None\npydantic.create_model = print\n" + TOOL, ""),
    "a broken json": (b"import json\njson.dumps = lambda *a, **k: 'no'\n" + TOOL, "is no contract: not JSON"),
    "a deep type": (TOOL.replace(b"name: str", b"name: " + b"list[" * 90 + b"int" + b"]" * 90), "nested deeper"),
    "a bottomless type": (
        b"T = int\nfor _ in range(100000): T = list[T]\n" + TOOL.replace(b"name: str", b"name: T"),
        "RecursionError|type without a schema|crashed the process",
    ),
    "a hundred thousand tools": (
        b"from workbench.sdk import tool\nfor n in range(100000):\n    def f() -> int: return 1\n"
        b"    f.__name__ = f't{n}'\n    globals()[f.__name__] = tool()(f)\n",
        "100000 tools, 1000 at most",
    ),
    "a surrogate in a schema": (
        b"from typing import Literal\n" + TOOL.replace(b"name: str", b"name: Literal['\\ud800']"),
        "half a character|UnicodeEncodeError|SchemaError",
    ),
    "a name that is none": (TOOL.replace(b"tool()", b"tool(name='a\\x1b[2J')"), r"cannot be called 'a\x1b[2J'"),
    "a reason of a megabyte": (b"raise ValueError('x' * (1 << 20))\n", "ValueError: xxx"),
    "another room of the workbench": (b"import workbench.store\n", "workbench.sdk only"),
    "what is not there": (b"import torch\n", "No module named 'torch'"),
    "no tool": (b"x = 1\n", "defines no tool"),
    "a flood of processes": (
        b"import os\nwhile True: os.fork()\n",
        "Extra data|BlockingIOError|processor time|took more than",
    ),
}  # fmt: skip


def assert_said(record: ContractRecord, said: str) -> None:
    if not said:
        assert record.contract is not None, record.why
        return
    assert record.contract is None
    assert any(each in record.why for each in said.split("|")), record.why
    assert record.why.isprintable()
    assert len(record.why) <= 500


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_code_has_no_contract_and_the_record_says_why(
    repository: GitRepository, commit: Commit, kind: str
) -> None:
    code, said = HOSTILE[kind]
    record = contract_of(repository, commit({"bad.py": code}))
    assert_said(record, said)
    assert repository.contracts.get(record.tree) == record


def test_code_that_sleeps_is_ended(repository: GitRepository, commit: Commit, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = repository.objects.entry(commit({"bad.py": b"import time\ntime.sleep(1000)\n"}), "agents")
    assert tree is not None
    record = contracts.compute(repository, tree.id, wiring.sandbox(), wall_s=4.0)
    assert_said(record, "took more than 4 s")


@pytest.mark.parametrize("kind", FORGE)
def test_a_forged_answer_is_read_as_data(repository: GitRepository, commit: Commit, kind: str) -> None:
    answer, said = FORGE[kind]
    assert_said(contract_of(repository, commit({"bad.py": FORGED % answer})), said)


def test_code_may_lie_about_itself_and_nothing_else(repository: GitRepository, commit: Commit) -> None:
    lie = {"format": 1, "contract": {"format": 1, "tools": {"lie": {"input": {}, "output": {}}}}, "why": ""}
    record = contract_of(repository, commit({"bad.py": FORGED % json.dumps(lie).encode()}))
    assert record.contract == lie["contract"]


def test_code_inside_sees_neither_repository_nor_network(repository: GitRepository, commit: Commit) -> None:
    code = (
        b"import os, socket\nassert not os.path.exists(%r), 'seen'\nassert 'HOME' not in os.environ or "
        b"os.environ['HOME'] == '/tmp'\n"
        b"try:\n    socket.create_connection(('1.1.1.1', 53), 1)\nexcept OSError: pass\nelse: raise SystemExit\n"
    ) % str(repository.path).encode()
    assert_said(contract_of(repository, commit({"bad.py": code + TOOL})), "")


def test_more_than_fits_is_not_packed(repository: GitRepository, commit: Commit) -> None:
    record = contract_of(repository, commit({"a.py": TOOL, "data.bin": bytes(17 << 20)}))
    assert_said(record, "more than 10000 files or 16 MiB")


def test_a_link_is_no_file_of_agents(repository: GitRepository, commit: Commit) -> None:
    made = commit({"a.py": TOOL})
    blob = repository.objects.add_blob(b"/etc/passwd")
    assert repository.objects.entry(made, "agents") is not None
    import subprocess

    def git(*arguments: str, given: bytes = b"") -> str:
        command = ["git", "--git-dir", str(repository.path), *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout.decode().strip()

    inside = git("mktree", given=f"120000 blob {blob}\tlink.py\n160000 commit {made}\tsub\n".encode())
    tree = git("mktree", given=f"040000 tree {inside}\tagents\n".encode())
    linked = git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit-tree", "-m", "c", tree)
    assert_said(contract_of(repository, ObjectId(linked)), "defines no tool")


def test_a_commit_without_agents_is_said(repository: GitRepository) -> None:
    tree = repository.objects.add_tree(EMPTY_TREE, {"a": b""})
    made = repository.objects.add_commit(tree, parents=(), message="c\n", who=WHO, time_ms=1000)
    with pytest.raises(NotFound, match="no agents/ folder"):
        contract_of(repository, made)


class Broken:
    """A sandbox that says ``missing``, or breaks before any code of agents/ has run."""

    def __init__(self, missing: str = "") -> None:
        self._missing = missing

    def probe(self) -> str:
        return self._missing

    def run(self, job: Job) -> SandboxResult:
        return SandboxResult(Outcome.EXITED, 127, b"", b"cannot execute\n", False, 0.1)

    def map(self, jobs, workers=1):  # type: ignore[no-untyped-def]
        return [self.run(job) for job in jobs]


def test_without_a_sandbox_nothing_runs_and_nothing_is_recorded(repository: GitRepository, commit: Commit) -> None:
    made = commit({"a.py": TOOL + b"# no sandbox\n"})
    with pytest.raises(ToolMissing, match="run: apt-get install -y bubblewrap"):
        contract_of(repository, made, sandbox=Broken("bubblewrap is not installed; run: apt-get install -y bubblewrap"))
    with pytest.raises(WorldError, match="cannot execute"):
        contract_of(repository, made, sandbox=Broken())
    assert contract_of(repository, made).contract is not None


def test_a_damaged_record_is_computed_anew(repository: GitRepository, commit: Commit, tmp_path: Path) -> None:
    from workbench.domain.contract import path_of
    from workbench.domain.errors import Corrupt
    from workbench.domain.ledger import RefMove

    made = commit({"a.py": TOOL + b"# damaged\n"})
    record = contract_of(repository, made)
    top = repository.refs.get(str(CONTRACTS))
    assert top is not None
    for damage in (b"{", b'{"format": 2}', bytes(2 << 20), record.to_bytes().replace(record.tree.encode(), b"1" * 40)):
        old = repository.refs.get(str(CONTRACTS))
        tree = repository.objects.add_tree(repository.objects.commit(top).tree, {path_of(record.tree): damage})
        bad = repository.objects.add_commit(tree, parents=(top,), message="d\n", who=WHO, time_ms=1000)
        assert old is not None
        repository.refs.swap([RefMove(CONTRACTS, old, bad)])
        with pytest.raises(Corrupt, match=r"workbench contract REV --again|upgrade workbench"):
            repository.contracts.get(record.tree)
        assert contract_of(repository, made) == record
