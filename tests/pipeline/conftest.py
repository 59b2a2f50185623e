"""A small workspace whose pipeline is two commands, ``words`` and ``count``; and builders for variants of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workbench.clock.system import SystemClock
from workbench.domain.ids import EMPTY_TREE, ZERO_ID, ObjectId
from workbench.domain.ledger import Action, RefMove
from workbench.domain.refs import MAIN, ArtifactTag
from workbench.domain.run import RunRecord
from workbench.pipeline.definition import Definition, load
from workbench.pipeline.plan import Mode, Planner
from workbench.pipeline.walk import Settings, run_pipeline
from workbench.ports.store import Artifact
from workbench.sandbox.bubblewrap import Bubblewrap
from workbench.store.git.repository import GitRepository

WHO = "Test <test@example.com>"

TOY_TOML = """
format = 1
name = "toy"

[stage.words]
text = "b a c a"

[[stages]]
name = "words"
command = ["python", "tools/words.py"]
makes = "raw"
code = ["tools/words.py", "tools/steps.py"]

[[stages]]
name = "count"
command = ["python", "tools/count.py"]
reads = ["raw"]
makes = "dataset"
code = ["tools/count.py", "tools/steps.py"]
"""

STEPS_PY = '''
"""What every toy stage does first and last."""
import json, sys
from pathlib import Path
from typing import Any

def begin():
    step = json.loads(Path(sys.argv[-1]).read_text())
    return step, Path(step["output"])

def end(output, counts=None, **rest):
    body = {"format": 1, "counts": counts or {}, "metrics": {}, **rest}
    (output.parent / "result.json").write_text(json.dumps(body))
'''

WORDS_PY = """
import json, sys
sys.path.insert(0, "tools")
from steps import begin, end
step, output = begin()
print(json.dumps({"event": "log", "text": "splitting"}), flush=True)
progress = {"event": "progress", "done": 1, "total": 1, "unit": "texts", "rates": {"texts_per_s": 2.0}}
print(json.dumps(progress), flush=True)
words = sorted(step["params"]["text"].split())
(output / "words.txt").write_text("\\n".join(words))
end(output, {"words": len(words)})
"""

COUNT_PY = """
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, "tools")
from steps import begin, end
step, output = begin()
raw = Path(step["inputs"]["raw"])
assert raw.with_name("raw.manifest.json").is_file()
words = (raw / "words.txt").read_text().split()
(output / "counts.txt").write_text("".join(f"{w} {words.count(w)}\\n" for w in sorted(set(words))))
end(output, {"distinct": len(set(words))})
"""

TOY_FILES: Mapping[str, str] = {
    "ci/pipelines/toy.toml": TOY_TOML,
    "tools/steps.py": STEPS_PY,
    "tools/words.py": WORDS_PY,
    "tools/count.py": COUNT_PY,
}


@dataclass
class Toy:
    """A workspace, and what tests do with it."""

    repository: GitRepository
    commit: ObjectId
    clock: SystemClock = field(default_factory=SystemClock)

    def edit(self, changes: Mapping[str, str | None]) -> None:
        """Commit changed files on main."""
        objects = self.repository.objects
        base = objects.commit(self.commit).tree if self.commit != ZERO_ID else EMPTY_TREE
        files = {path: None if text is None else text.encode() for path, text in changes.items()}
        parents = [self.commit] if self.commit != ZERO_ID else []
        commit = objects.add_commit(
            objects.add_tree(base, files), parents=parents, message="edit\n", who=WHO, time_ms=self.clock.now_ms()
        )
        self.repository.ledger.change(Action.INIT, [RefMove(MAIN, self.commit, commit)], who=WHO, why="edit")
        self.commit = commit

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.repository.objects.read_file(self.commit, path).decode()
        assert old in text
        self.edit({path: text.replace(old, new)})

    @property
    def definition(self) -> Definition:
        return load(self.repository.objects, self.commit, "toy", ())

    @property
    def planner(self) -> Planner:
        return Planner(self.repository, self.definition, self.commit)

    @staticmethod
    def settings(**more: Any) -> Settings:
        """Of a walk with a sandbox for the workspace's own stages."""
        return Settings(WHO, 2, **{"sandbox": Bubblewrap, **more})

    def run(self, mode: Mode | None = None, how: Settings | None = None) -> RunRecord:
        return run_pipeline(self.planner, mode or Mode(), how or self.settings(), clock=self.clock, trigger="test")

    def artifact(self, short: str) -> Artifact:
        return self.repository.artifacts.get(ArtifactTag.parse(short))

    def read(self, short: str, path: str) -> str:
        return self.repository.artifacts.read(self.artifact(short), path).decode()

    def states(self, record: RunRecord) -> dict[str, str]:
        return {step.stage: step.state.value for step in record.steps}

    def refs(self) -> dict[str, str]:
        return dict(self.repository.refs.all())

    def fsck(self) -> str:
        done = subprocess.run(
            ["git", "--git-dir", str(self.repository.path), "fsck", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def new_repository(tmp_path: Path) -> Iterator[Callable[[str], GitRepository]]:
    opened = []

    def make(name: str) -> GitRepository:
        path = tmp_path / name
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
        opened.append(GitRepository(path))
        return opened[-1]

    yield make
    for repository in opened:
        repository.close()


@pytest.fixture
def toy(new_repository: Callable[[str], GitRepository]) -> Toy:
    workspace = Toy(new_repository("toy.git"), ZERO_ID)
    workspace.edit(TOY_FILES)
    return workspace
