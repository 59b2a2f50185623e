"""``workbench complete``: the record that it writes is enough to have the same answer again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.model_process import model_process_ended
from workbench.app.importing.file import import_file
from workbench.store.git.repository import GitRepository
from workbench.store.git.settings import init_hub

ASK = ("complete", "release/tiny", "--temperature", "1.2", "--seed", "7", "-n", "20", "--stop", "zz")


@pytest.fixture(scope="module")
def hub(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("complete")
    init_hub(folder / "hub.git")
    with GitRepository(folder / "hub.git") as repository:
        import_file(repository, tiny.q8, name="tiny", license="MIT", who="A <a@b.c>", trial=lambda model: None)
    return folder / "hub.git"


@pytest.fixture(scope="module")
def record(cli: Any, hub: Path) -> dict[str, Any]:
    made = cli(hub, *ASK, "-p", "fn a(", "--suffix", ") {}", "--json")
    assert made.returncode == 0, made.stderr
    found: dict[str, Any] = json.loads(made.stdout)
    return found


@pytest.mark.parametrize("wrapped", ["as complete writes it", "as the server answers", "the record alone"])
def test_a_record_is_enough_to_repeat_it(cli: Any, hub: Path, record: dict[str, Any], wrapped: str) -> None:
    bare = {key: value for key, value in record.items() if key not in ("release", "tree")}
    text = {
        "as complete writes it": record,
        "as the server answers": {"id": "cmpl-1", "choices": [], "workbench": {"release": "x", "record": bare}},
        "the record alone": bare,
    }[wrapped]
    again = cli(hub, "complete", "release/tiny", "--replay", "-", "--json", stdin=None, input=json.dumps(text))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == record


def test_a_crash_of_the_library_is_an_error_that_says_so(cli: Any, hub: Path) -> None:
    with model_process_ended(signal.SIGKILL):
        done = cli(hub, *ASK, "-p", "x")
    assert (done.returncode, done.stdout) == (10, "")
    assert "llama.cpp in load was ended (SIGKILL) on tiny-Q8_0.gguf of release/tiny/v1.0.0" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_text_is_printed_once(cli: Any, hub: Path, record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(json.dumps(record))
    done = cli(hub, "complete", "release/tiny", "--replay", str(tmp_path / "record.json"))
    assert (done.returncode, done.stdout) == (0, record["text"] + "\n")


def test_an_answer_that_is_not_the_record_s_is_an_error(cli: Any, hub: Path, record: dict[str, Any]) -> None:
    changed = {**record, "text": "another", "tokens": record["tokens"][:-1]}
    done = cli(hub, "complete", "release/tiny", "--replay", "-", stdin=None, input=json.dumps(changed))
    assert done.returncode == 9
    assert "another one than the record's" in done.stderr
    elsewhere = {**changed, "engine": {**changed["engine"], "variant": "elbrus"}}
    done = cli(hub, "complete", "release/tiny", "--replay", "-", stdin=None, input=json.dumps(elsewhere))
    assert done.returncode == 9
    assert "set WORKBENCH_LLAMA_VARIANT=elbrus" in done.stderr


def test_a_record_of_before_there_were_variants_is_replayed(cli: Any, hub: Path, record: dict[str, Any]) -> None:
    old = {**record, "engine": {name: value for name, value in record["engine"].items() if name != "variant"}}
    done = cli(hub, "complete", "release/tiny", "--replay", "-", stdin=None, input=json.dumps(old))
    assert (done.returncode, done.stdout) == (0, record["text"] + "\n")


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"model_sha256": "0" * 64}, 2, "the record is of model 000000000000"),
        ({"engine": {}}, 2, "the record was made with sampler None"),
        ({"prompt_tokens": [10**9]}, 2, "outside the vocabulary"),
        ({"prompt_tokens": []}, 2, "nothing to go on with"),
        ({"format": 9}, 8, "format 9"),
        ({"tokens": ["x"]}, 8, "the record of a generation cannot be read: "),
        ({"sampling": {"temprature": 1}}, 8, "the record of a generation cannot be read: "),
        ({"sampling": {"temperature": "hot"}}, 8, "the record of a generation cannot be read: "),
        ({"sampling": {"repeat_penalty": 1e-300}}, 2, "repeat_penalty 1e-300 cannot be used"),
        ({"sampling": 5}, 8, "the record of a generation cannot be read: "),
    ],
)
def test_a_record_of_something_else_says_what_is_wrong(
    cli: Any, hub: Path, record: dict[str, Any], change: dict[str, Any], code: int, says: str
) -> None:
    done = cli(hub, "complete", "release/tiny", "--replay", "-", stdin=None, input=json.dumps({**record, **change}))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", "[" * 100_000, '{"workbench": 5}', '{"format": 1}'])
def test_what_is_no_record_is_said_so(cli: Any, hub: Path, text: str) -> None:
    done = cli(hub, "complete", "release/tiny", "--replay", "-", stdin=None, input=text)
    assert done.returncode == 8, done.stderr
    assert "record of a generation" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "--prompt TEXT"),
        (("-p", "x", "--replay", "-"), 2, "--prompt TEXT"),
        (("--replay", "none.json"), 4, "no such file"),
        (("--replay", "."), 2, "cannot be read"),
    ],
)
def test_a_prompt_or_a_record_is_needed(cli: Any, hub: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = cli(hub, "complete", "release/tiny", *arguments)
    assert done.returncode == code
    assert says in done.stderr


def test_what_the_server_of_the_same_release_answered_is_repeated_by_the_command(
    cli: Any, hub: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "workbench.cli.entry", "serve", "release/tiny", "--port", "0", "--repo", str(hub)]
    own = {**os.environ, "WORKBENCH_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=own) as server:
        assert server.stderr is not None
        try:
            said = server.stderr.readline()
            assert said.startswith("release/tiny/v1.0.0 is served at http://127.0.0.1:")
            with openai.OpenAI(base_url=said.split()[4], api_key="none", max_retries=0) as client:
                options: Any = {"prompt": "fn a(", "suffix": ") {}", "seed": 3, "temperature": 1.0, "max_tokens": 12}
                made = client.completions.create(model="release/tiny", extra_body={"min_p": 0.02}, **options)
        finally:
            server.send_signal(signal.SIGINT)
            server.stderr.read()
            assert server.wait(30) == 0
    again = cli(hub, "complete", "release/tiny", "--replay", "-", stdin=None, input=made.to_json())
    assert again.returncode == 0, again.stderr
    assert again.stdout == made.choices[0].text + "\n"
