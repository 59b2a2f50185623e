"""What code in ``agents/`` may import, and the only part of workbench that it may.

>>> from workbench.sdk import Completion, model, tool
>>> @tool(title="Complete")
... def complete(prompt: str) -> Completion:
...     "Go on with the prompt."
...     return model.complete(prompt)

The functions here answer only inside a Runner, which binds them to one version: its release, its active state and its
files. Elsewhere they raise an error that says so. There is no checkout: a data file beside the code is read by
``importlib.resources.files(__package__)``.
"""

from workbench.sdk import code, model
from workbench.sdk.answers import Completion, Match, Matches
from workbench.sdk.tools import ToolInfo, tool

__all__ = ["Completion", "Match", "Matches", "ToolInfo", "code", "model", "tool"]
