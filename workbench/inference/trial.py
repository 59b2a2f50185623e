"""A model opened and asked for one token, as a process of its own: what is done with a stranger's file in the sandbox.

``python -m workbench.inference.trial FILE`` prints ``ready`` when llama.cpp is there and no file has been touched yet;
it ends with 0 and the token in JSON, or says on standard error why not. What llama.cpp does to this process (a crash,
an abort, endless memory) is for whoever started it to judge.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from workbench.domain.errors import WorkbenchError
from workbench.domain.generation import Prompt, Sampling
from workbench.inference import llama, native
from workbench.inference.gguf_header import read_header

CONTEXT = 64  # tokens: enough for the prompt, and the cache of the largest model stays small
PROMPT = "fn main() {"
READY = "ready"


def try_model(path: Path) -> tuple[int, ...]:
    """The tokens that a greedy completion begins with: one, or none where the model ends at once."""
    header = read_header(path)
    own = header.metadata.get(f"{header.architecture}.context_length")
    context = min(CONTEXT, own) if isinstance(own, int) and own > 0 else CONTEXT
    with llama.load(path, context=context, threads=2) as model:
        return tuple(model.generate(Prompt(PROMPT), Sampling(temperature=0.0, max_tokens=1)).tokens)


def main(arguments: list[str]) -> int:
    try:
        native.start()  # what fails before ``ready`` is the fault of this installation, not of the file
        print(READY, flush=True)
        print(json.dumps({"tokens": try_model(Path(arguments[0]))}))
    except WorkbenchError as error:
        print(error.what, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
