"""The SDK's services for one version: its release through the model loader, its state's sampling, its files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from workbench.domain.errors import NotFound, WorldError
from workbench.domain.generation import Generation, Prompt, Sampling
from workbench.ports.call import Cancelled
from workbench.ports.inference import LoadedModel
from workbench.ports.store import Repository
from workbench.refactor import search as structural
from workbench.runner.version import AgentSnapshot
from workbench.sdk.answers import Completion, Matches
from workbench.sdk.services import current_call

MAX_FILES = 5000


class VersionServices:
    """Answers ``workbench.sdk`` for one snapshot. The model is opened on first use and shared by all calls, whose turn
    its queue says. A call that nobody waits for any more is given up, at work and in line."""

    def __init__(
        self, repository: Repository, snapshot: AgentSnapshot, open_model: Callable[[AgentSnapshot], LoadedModel]
    ) -> None:
        self._repository = repository
        self._snapshot = snapshot
        self._open_model = open_model
        self._model: LoadedModel | None = None
        self._lock = threading.Lock()  # for opening and closing

    def complete(self, prompt: str, *, max_tokens: int | None, seed: int | None) -> Completion:
        return self._generate(Prompt(prompt), max_tokens, seed)

    def fill_in_middle(self, prefix: str, suffix: str, *, max_tokens: int | None, seed: int | None) -> Completion:
        return self._generate(Prompt(prefix, suffix), max_tokens, seed)

    def search(self, pattern: str, *, language: str, code: str | None, limit: int) -> Matches:
        if code is not None:
            return structural.search([("code", code)], pattern, language=language, limit=limit)
        left_out: list[str] = []
        found = structural.search(self._files(language, left_out), pattern, language=language, limit=limit)
        if not left_out or found.outcome not in ("matched", "no_match"):
            return found
        return found.model_copy(update={"outcome": "truncated", "detail": f"not searched: {left_out[0]}"})

    def close(self) -> None:
        """Close the model; calls that are at work with it and in line end. Another call opens it again."""
        with self._lock:
            if self._model is not None:
                self._model.close()
                self._model = None

    def _opened(self) -> LoadedModel:
        with self._lock:
            if self._model is None:
                self._model = self._open_model(self._snapshot)
            return self._model

    def _generate(self, prompt: Prompt, max_tokens: int | None, seed: int | None) -> Completion:
        if self._snapshot.state.release is None:
            raise NotFound(f"{self._snapshot.version} pins no release", "pin one: workbench pin release/NAME")
        sampling: Sampling = self._snapshot.state.sampling.sampling()
        if max_tokens is not None:
            sampling = replace(sampling, max_tokens=max(1, min(max_tokens, 4096)))
        if seed is not None:
            sampling = replace(sampling, seed=seed)
        try:
            made: Generation = self._opened().generate(prompt, sampling, call=current_call())
        except Cancelled:
            raise _cancelled() from None
        finish = "stop" if made.finish == "stop" else "length" if made.finish == "length" else "end"
        return Completion(
            text=made.text,
            finish=finish,  # type: ignore[arg-type]
            seed=sampling.seed,
            prompt_tokens=len(made.prompt_tokens),
            completion_tokens=len(made.tokens),
        )

    def _files(self, language: str, left_out: list[str]) -> Iterator[tuple[str, str]]:
        """Path and text of the version's files in a language; into ``left_out`` goes what is not read, and why."""
        endings = structural.LANGUAGES.get(language, ())
        objects = self._repository.objects
        call = current_call()
        for number, entry in enumerate(objects.walk(self._snapshot.commit)):
            if call.is_cancelled:
                raise _cancelled()
            if number >= MAX_FILES:
                left_out.append(f"what comes after the first {MAX_FILES} files")
                return
            if not entry.path.endswith(endings) or entry.mode not in (0o100644, 0o100755):
                continue
            if objects.size(entry.id) > structural.MAX_SOURCE:
                left_out.append(f"{entry.path}, which is larger than {structural.MAX_SOURCE >> 20} MiB")
                continue
            yield entry.path, objects.read_blob(entry.id).decode("utf-8", errors="replace")


def _cancelled() -> WorldError:
    return WorldError("the call was cancelled", "nobody waits for its answer")
