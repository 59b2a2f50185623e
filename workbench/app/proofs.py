"""Whether what the workbench needs works on this machine: each thing is done once, small, in a process of its own.

``python -m workbench.app.proofs NAME`` is such a process. What native code does to it (a crash, a hang, endless memory)
is for ``prove`` to tell. Not here: what a repository is like (``doctor``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import workbench
from workbench.config.installed import command_for
from workbench.domain.crash import read_crash
from workbench.domain.errors import NO_ANSWER, NativeCrash, StageFailed, ToolMissing, WorkbenchError
from workbench.ports.store import Finding
from workbench.system.temporary import temporary_folder

PATIENCE_S = 60.0  # for one of them: each takes about a second on a machine that has nothing else to do
_TEXTS = [f"fn {chr(97 + n % 26) * (n % 7 + 1)}{chr(97 + n % 17)}() -> u32 {{ {n * 7919} }}\n" for n in range(200)]


@dataclass(frozen=True)
class Proof:
    """``name`` does ``what``, in a folder of its own; ``run`` answers which one it is (a version), or nothing.
    ``modules`` are those without which it is not tried. ``lost`` is what does not work where it fails, ``library`` the
    distribution that brings it (none: the error says what to do)."""

    name: str
    what: str
    run: Callable[[Path], str]
    lost: str
    modules: tuple[str, ...] = ()
    library: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}: {self.what}"


def prove(
    proofs: Sequence[Proof] | None = None,
    *,
    within: Path | None = None,
    patience_s: float = PATIENCE_S,
    python: str = sys.executable,
) -> Sequence[Finding]:
    """A finding for each proof (default: all), with what it cost. ``within``: a folder on the disk where the ref is
    moved. ``python``: what runs the processes."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = [
            pool.submit(_found, proof, within if proof is REF else None, patience_s, python)
            for proof in (PROOFS if proofs is None else proofs)
        ]
        return [each.result() for each in found]


def _found(proof: Proof, within: Path | None, patience_s: float, python: str) -> Finding:
    absent = next((name for name in proof.modules if find_spec(name) is None), "")
    if absent:
        return Finding("warning", f"{absent} is not installed: {proof.lost}", command_for(proof.library))
    begun_s = time.monotonic()
    with temporary_folder("proof", within=within) as folder:
        which, error = _in_child([python, "-m", "workbench.app.proofs", proof.label, str(folder)], proof, patience_s)
    ms = round((time.monotonic() - begun_s) * 1000)
    data = {"proof": proof.label, "ms": ms}
    if error is None:
        return Finding("ok", f"{proof.label} ({', '.join(filter(None, (which, f'{ms:,} ms')))})", data=data)
    why = error.what
    if isinstance(error, NativeCrash):
        why, data["log"] = why.removeprefix(error.crashed).strip(), list(error.log)
    severity = "warning" if isinstance(error, ToolMissing) else "error"
    hint = "" if isinstance(error, NativeCrash) and proof.library else error.hint
    fix = hint or (command_for(proof.library) if proof.library else "workbench doctor --json")
    return Finding(severity, f"{proof.label}: {why} ({ms:,} ms): {proof.lost}", fix, data=data)


def _in_child(command: Sequence[str], proof: Proof, patience_s: float) -> tuple[str, WorkbenchError | None]:
    """Which one the process found, and what went wrong in it, if anything did."""
    package = str(Path(workbench.__file__).parent.parent)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PYTHONPATH": package,
        "PYTHONSAFEPATH": "1",
        "PYTHONFAULTHANDLER": "1",
        "OMP_NUM_THREADS": "1",
        "WORKBENCH_CACHE_DIR": command[-1],
    }
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "", NativeCrash(proof.name, NO_ANSWER)
    told = _told(out)
    if process.returncode == 0:
        return str(told.get("which", "")), None
    log = err.splitlines()
    crash = read_crash(process.returncode, log, step="doctor", library=proof.name)
    if crash is None and "error" in told:
        kind = ToolMissing if told["error"] == ToolMissing.__name__ else StageFailed
        return "", kind(str(told["what"]), str(told["hint"]))
    return "", crash or StageFailed(log[-1] if log else f"it ended with exit code {process.returncode}")


def _told(out: str) -> Mapping[str, str]:
    try:
        return dict(json.loads(out))
    except (ValueError, TypeError):
        return {}


# --- what is done in the processes ------------------------------------------------------------------------------------


def _token(kind: str) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        from workbench.inference.proof import prove
        from workbench.inference.variants import chosen

        prove(kind, folder)
        return f"for {chosen().name}"

    return run


def _torch_step(folder: Path) -> str:
    """Forward, backward and one step of a small decoder; the loss must fall."""
    import torch
    from torch.nn import functional

    from workbench.decoder.config import DecoderConfig
    from workbench.decoder.model import Decoder

    decoder = Decoder(DecoderConfig(64, 64, 128, 1, 2, 2, 32, 32))
    decoder.initialise(1)
    ids = torch.arange(32)[None, :] % 64
    losses = []
    for _ in range(2):
        loss = functional.cross_entropy(decoder(ids[:, :-1])[0], ids[0, 1:])
        losses.append(float(loss.detach()))
        decoder.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in decoder.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.1 * parameter.grad)
    _check(losses[1] < losses[0], f"the loss of a model went from {losses[0]:.4f} to {losses[1]:.4f}")
    return str(torch.__version__)


def _round_trip(folder: Path) -> str:
    from workbench.tokens import spm
    from workbench.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer(spm.train(_TEXTS, vocab_size=340, character_coverage=1.0, longest_piece=16))
    text = "fn größe() -> u32 {\n\t42 // ∞\n}\n"
    _check(tokenizer.decode(tokenizer.encode(text)) == text, "a text does not come back from its tokens")
    return version("sentencepiece")


def _parse(folder: Path) -> str:
    import tree_sitter_rust
    from tree_sitter import Language, Parser

    root = Parser(Language(tree_sitter_rust.language())).parse(_TEXTS[0].encode()).root_node
    _check(not root.has_error, "the grammar does not parse a function")
    return version("tree-sitter-rust")


def _search(folder: Path) -> str:
    from workbench.refactor.grammar import find

    _check(len(find(_TEXTS[0], "fn $NAME() -> u32 { $$$ }", "rust", 2)) == 1, "a function is not found")
    return version("ast-grep-py")


def _sandboxed(folder: Path) -> str:
    from workbench.app import wiring

    missing = wiring.sandbox().probe()
    if missing:
        raise ToolMissing("there is no sandbox", missing)
    return ""


def _compile(folder: Path) -> str:
    from workbench.app import wiring
    from workbench.ports.sandbox import Job, Limits
    from workbench.system.programs import look

    rustc = look("rustc")
    rustc.usable()
    _sandboxed(folder)
    argv = ("rustc", "--edition=2021", "--crate-type=lib", "--emit=metadata", "-o", "/tmp/a.rmeta", "/in/a.rs")
    job = Job(argv, files={"a.rs": _TEXTS[0].encode()}, limits=Limits(wall_s=PATIENCE_S / 2), toolchain="rust")
    result = wiring.sandbox().run(job)
    if crash := result.crash("a compile check", library="rustc"):
        raise crash
    said = result.stderr.decode(errors="replace").strip().splitlines()
    _check(result.exit_code == 0, f"rustc does not compile a function: {said[0] if said else result.exit_code}")
    return " ".join(rustc.version.split()[1:2])


def _move_ref(folder: Path) -> str:
    """A commit becomes the tip of a branch by an entry of the ledger, durably."""
    from workbench.app.wiring import open_repository
    from workbench.domain.ids import EMPTY_TREE
    from workbench.domain.ledger import Action, RefMove
    from workbench.domain.refs import MAIN
    from workbench.store.git.settings import init_hub

    with open_repository(init_hub(folder / "hub.git")) as repository:
        objects = repository.objects
        tree = objects.add_tree(EMPTY_TREE, {"a": b"a"})
        commit = objects.add_commit(tree, parents=[], message="a\n", who="doctor <doctor@localhost>", time_ms=0)
        move = RefMove(MAIN, new=commit)
        repository.ledger.change(Action.INIT, [move], who="doctor <doctor@localhost>", why="doctor")
        _check(repository.refs.get(str(MAIN)) == commit, "a ref that was moved does not stand where it was moved to")
    return ""


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StageFailed(otherwise)


REF = Proof("store", "one ref moved and synced", _move_ref, "nothing can be stored")
PROOFS: Sequence[Proof] = (
    REF,
    Proof("sandbox", "one process", _sandboxed, "code of strangers is refused"),
    Proof("rustc", "one file compiled in the sandbox", _compile, "nothing is compiled in filter and evaluate"),
    Proof("torch", "one step", _torch_step, "models cannot be trained or evaluated", ("torch", "numpy"), "torch"),
    Proof(
        "SentencePiece", "one text to tokens and back", _round_trip, "tokenizers cannot be trained",
        ("sentencepiece",), "sentencepiece",
    ),
    *(
        Proof(
            "llama.cpp", f"one token from {kind} weights", _token(kind), "models cannot be served",
            ("llama_cpp", "gguf", "numpy"), "llama-cpp-python",
        )
        for kind in ("F16", "Q8_0", "Q4_K_M")
    ),
    Proof(
        "tree-sitter", "one function parsed", _parse, "sources cannot be filtered",
        ("tree_sitter", "tree_sitter_rust"), "tree-sitter-rust",
    ),
    Proof("ast-grep", "one function found", _search, "agents cannot search code", ("ast_grep_py",), "ast-grep-py"),
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Do one proof here."""
    label, folder = arguments
    proof = next(proof for proof in PROOFS if proof.label == label)
    try:
        print(json.dumps({"which": proof.run(Path(folder))}))
    except WorkbenchError as error:
        body: Mapping[str, str] = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
        print(json.dumps(body))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
