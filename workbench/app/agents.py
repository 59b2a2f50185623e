"""Serving one version: its snapshot, its services, and the model of the release that it pins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.app import wiring
from workbench.domain.errors import Corrupt, NotFound, StageFailed, UserError
from workbench.domain.version import Bump

if TYPE_CHECKING:
    from workbench.domain.generation import Generation
    from workbench.ports.inference import LoadedModel, ModelLoader
    from workbench.ports.store import Artifact, Repository
    from workbench.runner.pin import Pinned
    from workbench.runner.services import VersionServices
    from workbench.runner.version import AgentSnapshot


def model_file(artifact: Artifact, quantisation: str = "Q8_0") -> str:
    """The payload path of a release's GGUF in a quantisation; a release with a single GGUF has no choice."""
    models = [file.path for file in artifact.manifest.files if file.path.endswith(".gguf")]
    wanted = [path for path in models if path.upper().endswith(f"-{quantisation.upper()}.GGUF")]
    if wanted:
        return wanted[0]
    if len(models) == 1 and quantisation == "Q8_0":  # an imported model: what it is, it is
        return models[0]
    if not models:
        raise UserError(f"{artifact.tag.short} holds no GGUF", "name a release: workbench log lists them")
    raise NotFound(f"{artifact.tag.short} has no {quantisation} model", f"it has: {', '.join(models)}")


def open_release(
    repository: Repository, artifact: Artifact, quantisation: str = "Q8_0", *, loader: ModelLoader | None = None
) -> LoadedModel:
    """The release's model, straight from its ref through the cache; no network. ``loader``: one that remembers what
    crashed before."""
    name = model_file(artifact, quantisation)
    path: Path = repository.cache.file(artifact, name)
    try:
        return (loader or wiring.models()).load(path, name=f"{name} of {artifact.tag.short}")
    except Corrupt as error:  # the cache's file name is its digest: say which release it is
        raise Corrupt(f"{name} of {artifact.tag.short} cannot be opened: {error.what}", error.hint) from error


def repeat(model: LoadedModel, record: Generation) -> Generation:
    """The generation made once more from its record. StageFailed when it is another one."""
    made = model.replay(record)
    if (made.text, made.tokens, made.finish) != (record.text, record.tokens, record.finish):
        raise StageFailed(
            f"the answer is another one than the record's: {made.text[:60]!r} instead of {record.text[:60]!r}",
            _why(record.engine.get("variant"), made.engine.get("variant")),
        )
    return made


def _why(then: object, now: object) -> str:
    if then is None or then == now:
        return "the record was changed, or this machine's class or library is another: compare their `engine`"
    return (
        f"the record was made with variant {then} of llama.cpp, this is {now}: set WORKBENCH_LLAMA_VARIANT={then} and "
        "repeat it, where the processor can run that"
    )


def pin_release(
    repository: Repository, artifact: Artifact, *, who: str, why: str = "", at_least: Bump = Bump.PATCH
) -> Pinned:
    """``runner.pin`` with the contracts that the sandbox computes."""
    from workbench.app.contracts import maker
    from workbench.runner.pin import pin

    return pin(
        repository, artifact, contract_of=maker(repository), clock=wiring.clock(), who=who, why=why, at_least=at_least
    )


def serve_version(
    repository: Repository, name: str = "active", *, commit: str = ""
) -> tuple[AgentSnapshot, VersionServices]:
    """The snapshot of a version or channel, or of any commit, and the services that answer its tools; the model is
    opened on first use."""
    from workbench.runner import version
    from workbench.runner.services import VersionServices

    snapshot = version.load(repository, name, commit=commit)
    loader = wiring.models()
    return snapshot, VersionServices(repository, snapshot, lambda pinned: _open_pinned(repository, pinned, loader))


def _open_pinned(repository: Repository, snapshot: AgentSnapshot, loader: ModelLoader) -> LoadedModel:
    pinned = snapshot.state.release
    assert pinned is not None
    artifact = repository.artifacts.get(pinned.tag)
    if artifact.tree != pinned.tree_id:
        raise Corrupt(
            f"{pinned.artifact} has tree {artifact.tree[:12]}, but {snapshot.version} pins {pinned.tree[:12]}",
            "the tag does not name what was pinned: fetch it again from a hub that you trust",
        )
    return open_release(repository, artifact, snapshot.state.quantisation, loader=loader)
