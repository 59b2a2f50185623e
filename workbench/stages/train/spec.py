"""What the train stage reads, makes and may be told; one dial sets the sizes. No heavy library here."""

from __future__ import annotations

from typing import Any

from workbench.domain.refs import Kind
from workbench.domain.stage import Params, StageSpec

_SIZES = (  # by dial: 0 a first try, the smallest that every GGUF type takes, 2 the demonstration on two cores
    {"hidden_size": 256, "intermediate_size": 256, "num_layers": 1, "num_heads": 4, "num_kv_heads": 2, "steps": 12},
    {"hidden_size": 256, "intermediate_size": 256, "num_layers": 1, "num_heads": 4, "num_kv_heads": 2, "steps": 24},
    {"hidden_size": 256, "intermediate_size": 768, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "steps": 500},
    {"hidden_size": 512, "intermediate_size": 1536, "num_layers": 8, "num_heads": 8, "num_kv_heads": 4, "steps": 8000},
    {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_layers": 12,
        "num_heads": 12,
        "num_kv_heads": 4,
        "steps": 20000,
    },
    {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_layers": 16,
        "num_heads": 16,
        "num_kv_heads": 4,
        "steps": 40000,
    },
)
_RUNS = (
    {"batch_rows": 8, "micro_rows": 2, "learning_rate": 4e-3},
    {"batch_rows": 8, "micro_rows": 2, "learning_rate": 4e-3},
    {"batch_rows": 4, "micro_rows": 2, "learning_rate": 3e-3},
    {"batch_rows": 32, "micro_rows": 4, "learning_rate": 1.5e-3},
    {"batch_rows": 64, "micro_rows": 4, "learning_rate": 1e-3},
    {"batch_rows": 128, "micro_rows": 4, "learning_rate": 6e-4},
)


def resolve(dial: int, given: Params) -> dict[str, Any]:
    from workbench.config.dial import at_dial
    from workbench.config.params import resolve_params
    from workbench.stages.train.params import TrainParams

    defaults = {**at_dial(dial, _SIZES), **at_dial(dial, _RUNS)}
    steps = given.get("steps", defaults["steps"])
    quarter = max(1, steps // 4) if isinstance(steps, int) else 1
    defaults |= {"checkpoint_every": quarter, "validate_every": quarter}
    return resolve_params(TrainParams, given, stage="train", defaults=defaults).model_dump(mode="json")


SPEC = StageSpec(
    name="train",
    reads=(Kind.SHARDS,),
    makes=Kind.MODEL,
    resolve=resolve,
    libraries=("torch", "numpy", "safetensors"),
    hardware=True,
    major_params=("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "rope_theta"),
    carries=(Kind.SHARDS,),
    checkpoints=True,
)
