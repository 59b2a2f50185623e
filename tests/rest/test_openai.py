"""The OpenAI-compatible server, asked by OpenAI's own client and by plain HTTP, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.inference.process import ProcessLoader

RELEASE = "release/tiny/v1.2.3"
SERVER = """
import sys
from pathlib import Path
from workbench.inference.process import ProcessLoader
from workbench.rest.openai import serve
with ProcessLoader().load(Path(sys.argv[1]), threads=1) as model:
    serve(model, sys.argv[2], port=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def address(tiny: Any) -> Iterator[str]:
    """A server in a process of its own, ended by its id."""
    environment = {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"}
    command = [sys.executable, "-c", SERVER, str(tiny.q8), RELEASE, "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        try:
            yield server.stderr.readline().split(" at ")[1].split(" ")[0].removesuffix("/v1")
        finally:
            server.send_signal(signal.SIGINT)
            rest = server.stderr.read()
            assert server.wait(20) == 0
            assert rest.strip() == "ended"


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(tiny: Any) -> Iterator[Any]:
    with ProcessLoader().load(tiny.q8, threads=1) as model:
        yield model


def ask(address: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{address}/v1/completions", json={"prompt": "pub fn ", **body}, timeout=60)


def test_a_completion_is_what_the_model_gives_and_its_record_repeats_it(client: openai.OpenAI, model: Any) -> None:
    made = client.completions.create(model=RELEASE, prompt="let x", seed=5, temperature=0.7, max_tokens=20)
    direct = model.generate(Prompt("let x"), Sampling(temperature=0.7, top_k=0, top_p=1.0, seed=5, max_tokens=20))
    assert made.choices[0].text == direct.text
    assert made.system_fingerprint == RELEASE
    assert made.usage is not None
    assert made.usage.completion_tokens == len(direct.tokens)
    record = made.model_extra["workbench"]["record"]  # type: ignore[index]
    stored = Generation.from_json(record)
    assert stored.text == direct.text
    again = model.replay(stored)
    assert again == stored


def test_a_suffix_fills_in_the_middle(client: openai.OpenAI, model: Any) -> None:
    made = client.completions.create(model=RELEASE, prompt="fn a(", suffix=") {}", temperature=0, max_tokens=12)
    direct = model.generate(Prompt("fn a(", ") {}"), Sampling(max_tokens=12, top_k=0, top_p=1.0))
    assert made.choices[0].text == direct.text
    assert made.usage is not None
    assert made.usage.prompt_tokens == len(direct.prompt_tokens)


def test_streamed_text_is_the_whole_text_and_ends_with_record_and_usage(client: openai.OpenAI) -> None:
    options: Any = {"model": RELEASE, "prompt": "let", "seed": 2, "temperature": 1.5, "max_tokens": 60}
    whole = client.completions.create(**options)
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert len({chunk.id for chunk in chunks} | {whole.id}) == 1
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-2].model_extra["workbench"] == whole.model_extra["workbench"]  # type: ignore[index]


def test_models_are_listed_and_found_by_a_name_with_slashes(client: openai.OpenAI) -> None:
    assert [entry.id for entry in client.models.list()] == [RELEASE]
    assert client.models.retrieve(RELEASE).id == RELEASE
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4", prompt="x")
    assert caught.value.code == "model_not_found"


def test_log_probabilities_are_those_of_the_tokens(client: openai.OpenAI) -> None:
    made = client.completions.create(model=RELEASE, prompt="let", temperature=0, max_tokens=8, logprobs=3)
    shown = made.choices[0].logprobs
    assert shown is not None
    assert len(shown.tokens or []) == len(shown.token_logprobs or []) == len(shown.top_logprobs or []) == 8
    for value, best in zip(shown.token_logprobs or [], shown.top_logprobs or [], strict=True):
        assert value == pytest.approx(max(best.values()), abs=2e-2)  # greedy took the likeliest
        assert value <= 0


def test_chat_is_refused_with_where_to_go(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/completions"):
        client.chat.completions.create(model=RELEASE, messages=[{"role": "user", "content": "hello"}])


def test_a_stop_text_ends_the_answer(address: str) -> None:
    whole = ask(address, temperature=1.5, seed=9, max_tokens=60).json()["choices"][0]["text"]
    stop = whole[5:8]
    choice = ask(address, temperature=1.5, seed=9, max_tokens=60, stop=[stop]).json()["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"max_token": 3}, 400, "max_token"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"n": 2}, 400, "n"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": "x", "echo": True, "stream": True}, 400, None),
        ({"prompt": "x", "echo": True, "suffix": "y"}, 400, None),
        ({"presence_penalty": 0.5}, 400, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"stop": ""}, 400, "stop"),
        ({"repeat_penalty": 1e-300}, 400, "repeat_penalty"),
        ({"repeat_penalty": 1e-40, "stream": True}, 400, "repeat_penalty"),
        ({"temperature": float("nan")}, 400, None),
        ({"max_tokens": 10**40}, 400, None),
        ({"max_tokens": 2**31}, 400, None),
        ({"fim_layout": "mid"}, 400, "fim_layout"),
        ({"prompt": "x" * 5000}, 400, None),
        ({"prompt": "x" * 5000, "stream": True}, 400, None),
        *(({name: "a\ud800"}, 400, None) for name in ("prompt", "suffix", "model", "user", "stop", "fim_layout", "n")),
        ({"prompt": ["a", "\udfff"]}, 400, None),
        ({"stop": ["\udc80"], "stream": True}, 400, None),
        ({"logit_bias": {"\ud800": 1}}, 400, None),
        ({"\ud800": 1}, 400, None),
        ({"stream_options": {"\ud800": 1}}, 400, None),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(address: str, body: dict[str, Any], status: int, param: str) -> None:
    content = json.dumps({"prompt": "x", **body})
    answer = httpx.post(
        f"{address}/v1/completions", content=content, headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 5e-324},
        {"temperature": 1e-308, "top_p": 5e-324},
        {"min_p": 5e-324},
        {"min_p": 1 - 2**-53},
        {"repeat_penalty": 0.1},
        {"repeat_penalty": 10},
        {"top_k": 10**18, "seed": 2**63 - 1},
        {"seed": -(2**63)},
    ],
)
def test_values_at_the_ends_of_what_is_allowed_are_answered(address: str, model: Any, body: dict[str, Any]) -> None:
    answer = ask(address, max_tokens=4, **body)
    assert answer.status_code == 200, answer.text
    record = Generation.from_bytes(answer.content)
    assert model.replay(record) == record


def test_half_a_character_in_a_path_is_no_bug(address: str) -> None:
    for path in ("/v1/models/%ED%A0%80", "/%ED%A0%80", "/v1/models/x?y=%ED%A0%80"):
        answer = httpx.get(address + path, timeout=60)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]


def test_null_means_not_given(address: str) -> None:
    fields = [
        "model", "suffix", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "logprobs",
        "echo", "n", "best_of", "presence_penalty", "frequency_penalty", "logit_bias", "user", "top_k", "min_p",
        "repeat_penalty", "fim_layout",
    ]  # fmt: skip
    plain = ask(address).json()
    for given in (dict.fromkeys(fields), {"stream_options": {"include_usage": None}}):
        answer = ask(address, **given)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"] == plain["choices"]


@pytest.mark.parametrize("max_tokens", [256, 2048, 100_000])
def test_more_tokens_than_the_context_holds_end_with_it(address: str, max_tokens: int, model: Any) -> None:
    answer = ask(address, max_tokens=max_tokens, temperature=2, seed=1).json()
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert answer["usage"]["total_tokens"] <= 256
    record = Generation.from_json(answer["workbench"]["record"])
    assert model.replay(record) == record


def test_several_prompts_are_answered_in_their_order_whole_and_streamed(client: openai.OpenAI) -> None:
    options: Any = {"model": RELEASE, "seed": 2, "temperature": 1.5, "max_tokens": 12}
    alone = [client.completions.create(prompt=prompt, **options) for prompt in ("let", "fn a")]
    both = client.completions.create(prompt=["let", "fn a"], **options)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert [choice.text for choice in both.choices] == [one.choices[0].text for one in alone]
    assert both.usage is not None
    assert both.usage.total_tokens == sum(one.usage.total_tokens for one in alone if one.usage)
    assert len(both.model_extra["workbench"]["records"]) == 2  # type: ignore[index]
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(prompt=["let", "fn a"], stream=True, **options):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert list(texts.values()) == [choice.text for choice in both.choices]


def test_a_prompt_is_echoed_with_the_log_probabilities_of_its_tokens(address: str, model: Any) -> None:
    answer = ask(address, prompt="fn aé() {}", echo=True, logprobs=1, max_tokens=0).json()
    choice = answer["choices"][0]
    assert choice["text"] == "fn aé() {}"
    shown, ids = choice["logprobs"], model.tokenize("fn aé() {}")
    assert len(shown["tokens"]) == len(shown["token_logprobs"]) == len(shown["top_logprobs"]) == len(ids)
    scores = model.scores([1, *ids])
    assert shown["token_logprobs"] == [score.log_probability for score in scores]
    assert shown["text_offset"] == [len(model.text(ids[:index])) for index in range(len(ids))]
    both = ask(address, prompt="fn a", echo=True, logprobs=1, max_tokens=3, temperature=0).json()["choices"][0]
    assert both["text"].startswith("fn a")
    assert len(both["logprobs"]["tokens"]) == len(model.tokenize("fn a")) + 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'"text"', b"[" * 100_000, b'{"prompt": NaN}'])
def test_bodies_that_are_no_request_are_refused(address: str, content: bytes) -> None:
    answer = httpx.post(
        f"{address}/v1/completions", content=content, headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_body_over_four_mebibytes_is_refused(address: str) -> None:
    assert ask(address, prompt="x" * (5 << 20)).status_code == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:99"}, 200),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:80"}, 421),
        ({"host": "evil.example@localhost"}, 421),
        ({"host": "localhost:80:80"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "file://"}, 403),
    ],
)
def test_only_this_machine_s_names_and_pages_are_answered(address: str, headers: dict[str, str], status: int) -> None:
    for path in ("/health", "/v1/models"):
        assert httpx.get(f"{address}{path}", headers=headers, timeout=60).status_code == status


def test_a_form_of_another_site_cannot_post(address: str) -> None:
    answer = httpx.post(
        f"{address}/v1/completions", content='{"prompt":"x"}', headers={"content-type": "text/plain"}, timeout=60
    )
    assert answer.status_code == 415


def test_unknown_paths_and_methods_are_answered_in_the_same_shape(address: str) -> None:
    for path, status in (("/v2", 404), ("/v1/completions", 405)):
        answer = httpx.get(f"{address}{path}", timeout=60)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/completions", {"POST"}),
        ("PUT", "/v1/chat/completions", {"POST"}),
        ("DELETE", "/v1/models", {"GET", "HEAD"}),
        ("OPTIONS", "/health", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_is_not_allowed_is_told_those_that_are(
    address: str, method: str, path: str, allowed: set[str]
) -> None:
    answer = httpx.request(method, f"{address}{path}")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_many_at_once_get_the_answers_they_would_get_alone(address: str) -> None:
    def text(seed: int) -> str:
        answer = ask(address, seed=seed, temperature=1.0, max_tokens=16)
        return str(answer.json()["choices"][0]["text"])

    alone = [text(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(text, range(6))) == alone
    assert len(set(alone)) > 1


def test_a_client_that_goes_away_leaves_the_server_free(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "let", "max_tokens": 200, "stream": True, "temperature": 1.0})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            connection.recv(64)
    assert ask(address, max_tokens=4).status_code == 200


def test_a_port_that_is_taken_is_said_so(tiny: Any, address: str) -> None:
    port = address.rsplit(":", 1)[1]
    command = [sys.executable, "-c", SERVER, str(tiny.q8), RELEASE, port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_the_release_is_read_only_while_it_is_served(tiny: Any, address: str) -> None:
    before = Path(tiny.q8).stat()
    assert ask(address, max_tokens=4).status_code == 200
    after = Path(tiny.q8).stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
