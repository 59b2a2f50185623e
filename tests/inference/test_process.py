"""The model in a process of its own: what is asked of it, and what happens when it crashes, hangs or has no memory: by
real signals, real limits, a real file on which llama.cpp dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.domain.errors import NO_ANSWER, OUT_OF_MEMORY, Corrupt, NativeCrash, NotFound, StageFailed, UserError
from workbench.domain.generation import Prompt, Sampling
from workbench.inference import llama, process
from workbench.inference.process import ProcessLoader, ProcessModel
from workbench.ports.call import Call, Cancelled
from workbench.ports.inference import Busy

WARM = Sampling(temperature=1.2, top_k=0, top_p=1.0, seed=3, max_tokens=60)
LONG = Sampling(max_tokens=200)  # greedy, which goes on to the end


@pytest.fixture(scope="module")
def model(tiny: Any) -> Iterator[ProcessModel]:
    with ProcessLoader().load(tiny.q8, threads=1) as model:
        yield model


@pytest.fixture
def own(tiny: Any) -> Iterator[ProcessModel]:
    """One that a test may harm."""
    with ProcessLoader().load(tiny.q8, threads=1) as model:
        yield model


def pid_of(model: ProcessModel) -> int:
    assert model.pid is not None
    return model.pid


@contextlib.contextmanager
def held(model: ProcessModel) -> Iterator[None]:
    """Whatever the model does, it does not go on meanwhile."""
    os.kill(pid_of(model), signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid_of(model), signal.SIGCONT)


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.005)


# --- What is asked


def test_it_answers_as_the_library_in_one_s_own_process_does(tiny: Any, model: ProcessModel) -> None:
    tokens = [1, *range(20, 120)]
    with llama.load(tiny.q8, threads=1) as plain:
        for prompt in (Prompt("let"), Prompt("fn a(", ") {}"), Prompt("// naïve 🦀", "x", "spm")):
            record = model.generate(prompt, WARM)
            assert record == plain.generate(prompt, WARM)
            assert model.replay(record) == record
        assert np.array_equal(model.logits(tokens), np.concatenate([rows.copy() for rows in plain.logits(tokens)]))
        assert model.scores(tokens, top=2) == list(plain.scores(tokens, 2))
        assert model.tokenize("a\u2581🐙b") == plain.tokenize("a\u2581🐙b")
        assert model.text(range(416)) == plain.text(range(416))
        assert (model.context, model.engine) == (plain.context, plain.engine)


def test_text_comes_as_it_is_made_and_is_the_whole(model: ProcessModel) -> None:
    pieces: list[str] = []
    record = model.generate(Prompt("let"), WARM, pieces.append)
    assert "".join(pieces) == record.text
    assert len(pieces) > 1


def test_logits_are_the_caller_s_own(model: ProcessModel) -> None:
    first = model.logits([1, 30, 40])
    kept = first.copy()
    model.logits([1, 50, 60])
    assert np.array_equal(first, kept)


def test_threads_that_share_a_model_do_not_disturb_each_other(model: ProcessModel) -> None:
    seeds = range(6)
    alone = [model.generate(Prompt("let"), replace(WARM, seed=seed)).text for seed in seeds]
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(model.generate, Prompt("let"), replace(WARM, seed=seed)) for seed in seeds]
        assert [one.result(60).text for one in asked] == alone


def test_the_user_s_mistakes_are_the_same_errors_and_the_model_goes_on(tiny: Any, model: ProcessModel) -> None:
    before = model.pid
    for wrong in (Prompt("\ud800"), Prompt("a", "\udfff"), Prompt("a", "b", "mid"), Prompt("x " * 5000)):
        with pytest.raises(UserError) as caught:
            model.generate(wrong, WARM)
        assert caught.value.hint
    for sampling in (replace(WARM, temperature=float("nan")), replace(WARM, stop=("\udc80",)), replace(WARM, top_k=-1)):
        with pytest.raises(UserError):
            model.generate(Prompt("x"), sampling)
    with pytest.raises(UserError, match="outside the vocabulary"):
        model.logits([1, 2**40])
    assert model.generate(Prompt("let"), WARM).tokens
    assert model.pid == before
    with pytest.raises(UserError, match="more than the 256 that"):
        ProcessLoader().load(tiny.q8, context=1024)


def test_a_file_that_is_no_model_is_refused_and_no_process_is_left(tmp_path: Path, tiny: Any) -> None:
    before = children()
    with pytest.raises(NotFound):
        ProcessLoader().load(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(tiny.q8.read_bytes()[:1000])
    with pytest.raises(Corrupt):
        ProcessLoader().load(tmp_path / "bad.gguf")
    assert children() == before


def children() -> set[int]:
    """Model processes of this one."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if b"workbench.inference.host" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(int(child))
    return found


def test_quantising_is_done_elsewhere_and_leaves_nothing_where_it_fails(tiny: Any, tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"q8 \xff.gguf")
    ProcessLoader().quantise(tiny.f16, target, "Q8_0")
    assert target.read_bytes() == tiny.q8.read_bytes()
    with pytest.raises(StageFailed):
        ProcessLoader().quantise(tiny.q8, tmp_path / "q4.gguf", "Q4_K_M")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


ALONE = """
import sys
from pathlib import Path
from workbench.app.wiring import models
from workbench.domain.generation import Prompt, Sampling
model = models().load(Path(sys.argv[1]), threads=1)
model.generate(Prompt("let"), Sampling(max_tokens=2))
assert not {name for name in sys.modules if name.startswith("llama_cpp")}
print(model.pid, flush=True)
sys.stdin.read()
"""


def test_whoever_asks_does_not_load_the_library_and_the_process_ends_with_him(tiny: Any) -> None:
    command = [sys.executable, "-c", ALONE, str(tiny.q8)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None
        pid = int(asker.stdout.readline())
        os.kill(pid, 0)
        asker.kill()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


# --- Who asks, and who gives up


def test_who_gives_up_ends_the_work_and_the_model_goes_on(own: ProcessModel) -> None:
    before = own.generate(Prompt("let"), WARM)
    pid, call, pieces = own.pid, Call(), []

    def hear(text: str) -> None:
        pieces.append(text)
        call.cancel()

    with pytest.raises(Cancelled):
        own.generate(Prompt("let"), LONG, hear, call=call)
    with pytest.raises(Cancelled):
        own.generate(Prompt("let"), LONG, call=call)
    assert own.generate(Prompt("let"), WARM) == before
    assert own.pid == pid


def test_work_that_is_given_up_is_not_done(own: ProcessModel) -> None:
    def cost_s(prompt: str, call: Call) -> float:
        before_s = cpu_s(pid_of(own))
        with ThreadPoolExecutor(1) as pool:
            with held(own):
                asked = pool.submit(own.generate, Prompt(prompt), LONG, call=call)
                until(lambda: taken(own) == 1)
                if prompt == "given up":
                    call.cancel()
            with contextlib.suppress(Cancelled):
                asked.result(60)
        return cpu_s(pid_of(own)) - before_s

    assert len(own.generate(Prompt("whole"), LONG).tokens) == 200
    whole_s = min(cost_s("whole", Call()) for _ in range(3))
    assert min(cost_s("given up", Call()) for _ in range(3)) < whole_s / 3


def test_who_gives_up_in_line_is_let_go_at_once_and_never_asked_for(own: ProcessModel) -> None:
    with ThreadPoolExecutor(2) as pool, held(own):
        at_work = pool.submit(own.generate, Prompt("let"), WARM)
        until(at_work.running)
        call = Call("other")
        in_line = pool.submit(own.generate, Prompt("let"), WARM, call=call)
        call.cancel()
        with pytest.raises(Cancelled):
            in_line.result(30)
        assert not at_work.done()


def test_clients_are_answered_in_turn_whoever_asks_more(own: ProcessModel) -> None:
    done: list[str] = []

    def ask(client: str) -> None:
        own.generate(Prompt("let"), Sampling(max_tokens=1), call=Call(client))
        done.append(client)

    with ThreadPoolExecutor(8) as pool:
        with held(own):
            for number, client in enumerate("aaaaabbc", 1):
                pool.submit(ask, client)
                until(lambda number=number: taken(own) == number)  # type: ignore[misc]
    assert "".join(done) == "abcabaaa"


def taken(model: ProcessModel) -> int:
    return model.taken


def test_too_many_in_line_are_told_so_and_one_client_s_flood_leaves_room_for_others(tiny: Any) -> None:
    loader = ProcessLoader(max_waiting=3, max_waiting_of_one=2)
    with loader.load(tiny.q8, threads=1) as model, ThreadPoolExecutor(8) as pool:
        with held(model):
            asked = []
            for number, client in enumerate("aaab", 1):
                asked.append(pool.submit(model.generate, Prompt("x"), Sampling(max_tokens=1), call=Call(client)))
                until(lambda number=number: taken(model) == number)  # type: ignore[misc]
                if number == 3:
                    with pytest.raises(Busy):
                        model.generate(Prompt("x"), WARM, call=Call("a"))
            with pytest.raises(Busy, match="4 requests"):
                model.generate(Prompt("x"), WARM, call=Call("c"))
        assert all(len(one.result(60).tokens) <= 1 for one in asked)


def test_what_a_listener_raises_reaches_the_caller_and_the_next_call_is_answered(own: ProcessModel) -> None:
    def hear(text: str) -> None:
        raise ZeroDivisionError

    before = own.generate(Prompt("let"), WARM)
    with pytest.raises(ZeroDivisionError):
        own.generate(Prompt("let"), LONG, hear)
    assert own.generate(Prompt("let"), WARM) == before


def test_closing_ends_who_is_at_work_and_who_waits(tiny: Any) -> None:
    model = ProcessLoader().load(tiny.q8, threads=1)
    pid = pid_of(model)
    with ThreadPoolExecutor(2) as pool:
        with held(model):
            asked = [pool.submit(model.generate, Prompt("let"), WARM) for _ in range(2)]
            until(lambda: taken(model) == 2)
            model.close()
        for one in asked:
            with pytest.raises(UserError, match="the model is closed"):
                one.result(30)
    model.close()
    assert not Path(f"/proc/{pid}").exists()
    for ask in (lambda: model.generate(Prompt("x"), WARM), lambda: model.logits([1]), lambda: model.tokenize("x")):
        with pytest.raises(UserError, match="the model is closed"):
            ask()


# --- Crash, hang, no memory


def at_work(model: ProcessModel, pool: ThreadPoolExecutor) -> Future[Any]:
    """A call that keeps the library at work for a minute, in its own code, where nothing of ours can end it."""
    before_s = cpu_s(pid_of(model))
    asked = pool.submit(model.tokenize, "\t\n" * 100_000)
    until(lambda: cpu_s(pid_of(model)) > before_s + 0.3)
    return asked


def cpu_s(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGILL])
def test_a_crash_is_told_to_who_was_at_work_and_the_others_find_a_new_process(
    own: ProcessModel, number: signal.Signals
) -> None:
    before = own.generate(Prompt("let"), WARM)
    pid = pid_of(own)
    with ThreadPoolExecutor(3) as pool:
        first = at_work(own, pool)
        others = [pool.submit(own.generate, Prompt("let"), WARM) for _ in range(2)]
        until(lambda: taken(own) == 3)
        os.kill(pid, number)
        with pytest.raises(NativeCrash) as caught:
            first.result(60)
        assert (caught.value.crashed, caught.value.ended) == ("llama.cpp in tokenize", number.name)
        assert "tiny-Q8_0.gguf" in caught.value.given
        assert all(other.result(60) == before for other in others)
    assert own.pid != pid


def test_a_crash_s_account_has_the_last_lines_that_the_process_wrote(own: ProcessModel) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = at_work(own, pool)
        os.kill(pid_of(own), signal.SIGSEGV)
        with pytest.raises(NativeCrash) as caught:
            asked.result(60)
    assert any("Segmentation fault" in line for line in caught.value.log)
    assert any("native.py" in line for line in caught.value.log)  # where it was


def test_a_process_that_ended_while_nobody_asked_harms_nobody(own: ProcessModel) -> None:
    before = own.generate(Prompt("let"), WARM)
    for _ in range(2):
        os.kill(pid_of(own), signal.SIGKILL)
        assert own.generate(Prompt("let"), WARM) == before


def test_a_process_that_says_nothing_is_ended_and_the_next_call_is_answered(tiny: Any) -> None:
    with ProcessLoader(patience_s=8.0).load(tiny.q8, threads=1) as model:
        pid = pid_of(model)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(NativeCrash) as caught:
            model.generate(Prompt("let"), WARM)
        assert caught.value.ended == NO_ANSWER
        assert not Path(f"/proc/{pid}").exists()
        assert model.generate(Prompt("let"), Sampling(max_tokens=1)).finish == "length"


def test_a_limit_of_memory_ends_the_process_that_is_told(tiny: Any, tmp_path: Path) -> None:
    loader = ProcessLoader(memory_bytes=700 << 20)
    before = children()
    with loader.load(tiny.q8, threads=1) as model:
        assert model.generate(Prompt("let"), Sampling(max_tokens=1)).finish == "length"
    large = tmp_path / "large.gguf"
    with tiny.q8.open("rb") as source, large.open("wb") as target:
        target.write(source.read())
        target.truncate(2 << 30)  # mapped whole
    with pytest.raises(NativeCrash) as caught:
        loader.load(large, threads=1)
    assert caught.value.ended == OUT_OF_MEMORY
    assert children() == before


def deadly(tiny: Any, target: Path) -> Path:
    """A file with a sane header on which llama.cpp aborts: a million layers."""
    data = bytearray(tiny.q8.read_bytes())
    key = b"llama.block_count"
    at = data.index(key) + len(key) + 4
    data[at : at + 4] = (1_000_000).to_bytes(4, "little")
    target.write_bytes(data)
    return target


def test_a_file_on_which_the_library_dies_is_a_crash_and_after_some_it_is_left_alone(tiny: Any, tmp_path: Path) -> None:
    before, loader, path = children(), ProcessLoader(), deadly(tiny, tmp_path / "deadly.gguf")
    for _ in range(process.CRASHES):
        with pytest.raises(NativeCrash) as caught:
            loader.load(path, threads=1)
        assert caught.value.crashed == "llama.cpp in load"
        assert caught.value.given == "deadly.gguf"
    started_s = time.process_time()
    with pytest.raises(NativeCrash, match="3 times in a row") as caught:
        loader.load(path, threads=1)
    assert caught.value.log
    assert time.process_time() - started_s < 0.1
    assert children() == before
