"""The shape of a decoder, under the keys of Hugging Face's Llama ``config.json``. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.domain.canonical import canonical_lines
from workbench.domain.errors import NotFound, UserError
from workbench.domain.reading import flag, nullable, number, optional, parse_json, printed, read_or_tell, record, whole

CONFIG_FILE = "config.json"
_FIXED = {  # what makes the file a Llama to others; another value is refused, not ignored
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
}


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and constants. ``hidden_size`` and ``intermediate_size`` in multiples of 256 can be quantised to every
    GGUF type (``quantisable``)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    bos_token_id: int = 1
    eos_token_id: int = 2
    pad_token_id: int = 3

    def __post_init__(self) -> None:
        sizes = {name: value for name, value in asdict(self).items() if name.startswith(("num_", "hidden", "inter"))}
        wrong = [name for name, value in sizes.items() if value < 1]
        if wrong or self.vocab_size < 1 or self.max_position_embeddings < 1:
            raise UserError(f"a decoder's sizes must be positive: {', '.join(wrong)}", "give a positive number")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"{self.num_attention_heads} heads cannot share {self.num_key_value_heads} key-value heads",
                "make the number of heads a multiple of the number of key-value heads",
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise UserError(f"head_dim is {self.head_dim}: RoPE rotates pairs", "give an even head_dim")

    @property
    def quantisable(self) -> bool:
        """Whether no GGUF type falls back to another one for these row lengths."""
        rows = (self.hidden_size, self.intermediate_size, self.num_attention_heads * self.head_dim)
        return all(row % 256 == 0 for row in rows)

    @property
    def num_parameters(self) -> int:
        attention = self.hidden_size * self.head_dim * 2 * (self.num_attention_heads + self.num_key_value_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + self.hidden_size

    def to_json(self) -> dict[str, Any]:
        return {**_FIXED, **asdict(self), "torch_dtype": "float32"}

    @classmethod
    def from_json(cls, raw: Any) -> DecoderConfig:
        """From Hugging Face's keys; keys that we do not know are ignored, a Llama that we cannot run is refused."""
        for key, value in _FIXED.items() if isinstance(raw, dict) else ():
            if raw.get(key, value) != value:
                raise UserError(f"{CONFIG_FILE} has {key} {printed(raw[key])}", f"only {value!r} can be run here")
        return read_or_tell(lambda: _CONFIG.read(raw, ""), what=CONFIG_FILE, hint="give the folder of a Llama")

    def save(self, folder: Path) -> None:
        (folder / CONFIG_FILE).write_bytes(canonical_lines(self.to_json()))

    @classmethod
    def load(cls, folder: Path) -> DecoderConfig:
        try:
            data = (folder / CONFIG_FILE).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no {CONFIG_FILE} in {folder}", "give the folder of a model") from error
        return cls.from_json(
            read_or_tell(lambda: parse_json(data), what=CONFIG_FILE, hint="give the folder of a Llama")
        )


def _config(num_key_value_heads: int | None, head_dim: int | None, **sizes: Any) -> DecoderConfig:
    heads = sizes["num_attention_heads"]
    return DecoderConfig(
        num_key_value_heads=num_key_value_heads or heads, head_dim=head_dim or sizes["hidden_size"] // heads, **sizes
    )


_SIZE = whole(1, 1 << 31)
_ID = whole(most=(1 << 31) - 1)
_CONFIG = record(
    _config,
    more=True,
    vocab_size=_SIZE,
    hidden_size=_SIZE,
    intermediate_size=_SIZE,
    num_hidden_layers=_SIZE,
    num_attention_heads=_SIZE,
    num_key_value_heads=optional(nullable(_SIZE), None),
    head_dim=optional(nullable(_SIZE), None),
    max_position_embeddings=_SIZE,
    rms_norm_eps=optional(number(0, 1), DecoderConfig.rms_norm_eps),
    rope_theta=optional(number(1), DecoderConfig.rope_theta),
    tie_word_embeddings=optional(flag(), DecoderConfig.tie_word_embeddings),
    bos_token_id=optional(_ID, DecoderConfig.bos_token_id),
    eos_token_id=optional(_ID, DecoderConfig.eos_token_id),
    pad_token_id=optional(_ID, DecoderConfig.pad_token_id),
)
