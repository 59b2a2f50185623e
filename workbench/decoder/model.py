"""The forward pass. Module names are Hugging Face's Llama names, so that a state dict needs no renaming.

Precision is explicit, there is no autocast: weights are kept in float32 and cast to ``compute`` where they are used;
norms, rotations, softmax (inside the attention kernel) and logits are float32.

Shapes: B batch, T new positions, S cached and new positions, D model width, H heads, K key-value heads, C width of a
head, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.decoder.config import DecoderConfig


@dataclass
class Cache:
    """Keys and values of what was read so far, both [layer, B, K, S, C]; ``length`` positions are filled."""

    keys: Tensor
    values: Tensor
    length: int = 0


class Linear(nn.Module):
    """A matrix without bias, cast to its input's type where it is used."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = Linear(self.heads * self.width, config.hidden_size)
        self.k_proj = Linear(self.kv_heads * self.width, config.hidden_size)
        self.v_proj = Linear(self.kv_heads * self.width, config.hidden_size)
        self.o_proj = Linear(config.hidden_size, self.heads * self.width)

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        batch, time, _ = x_BTD.shape
        q_BHTC = self.q_proj(x_BTD).view(batch, time, self.heads, self.width).transpose(1, 2)
        k_BKTC = self.k_proj(x_BTD).view(batch, time, self.kv_heads, self.width).transpose(1, 2)
        v_BKTC = self.v_proj(x_BTD).view(batch, time, self.kv_heads, self.width).transpose(1, 2)
        q_BHTC, k_BKTC = _rotate(q_BHTC, rotation), _rotate(k_BKTC, rotation)
        if cache is not None:
            end = cache.length + time
            cache.keys[layer, :, :, cache.length : end] = k_BKTC
            cache.values[layer, :, :, cache.length : end] = v_BKTC
            k_BKTC, v_BKTC = cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end]
        shared = self.heads // self.kv_heads
        if shared > 1:
            k_BKTC = k_BKTC.repeat_interleave(shared, dim=1)
            v_BKTC = v_BKTC.repeat_interleave(shared, dim=1)
        mixed_BHTC = functional.scaled_dot_product_attention(
            q_BHTC, k_BKTC, v_BKTC, attn_mask=mask, is_causal=mask is None
        )
        out: Tensor = self.o_proj(mixed_BHTC.transpose(1, 2).reshape(batch, time, self.heads * self.width))
        return out


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.intermediate_size, config.hidden_size)
        self.up_proj = Linear(config.intermediate_size, config.hidden_size)
        self.down_proj = Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out


class Layer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None, index: int
    ) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, mask, cache, index)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class Trunk(nn.Module):
    """Everything below the output matrix: what Hugging Face calls ``model``."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """Next-token logits of token ids. Weights are not initialised: ``initialise`` or ``weights.load`` does that."""

    def __init__(self, config: DecoderConfig, *, compute: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.compute = compute
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.vocab_size, config.hidden_size)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    def forward(
        self,
        ids_BT: Tensor,
        *,
        cache: Cache | None = None,
        padding_B: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [B, T, V] in float32, [B, 1, V] with ``last_only``.

        With ``cache``, ``ids_BT`` goes on where the cache ends. ``padding_B`` is the number of positions at the left of
        each row that are padding: they are not seen, and positions are counted after them.
        """
        _, time = ids_BT.shape
        start = cache.length if cache is not None else 0
        positions_BT = torch.arange(start, start + time, device=ids_BT.device)[None, :]
        mask = None
        if padding_B is not None:
            positions_BT = (positions_BT - padding_B[:, None]).clamp(min=0)
        if padding_B is not None or start:
            mask = _visible(start, time, padding_B, ids_BT.device)
        rotation = self._rotation(positions_BT)
        x_BTD = self.model.embed_tokens(ids_BT).to(self.compute)
        for index, layer in enumerate(self.model.layers):
            x_BTD = layer(x_BTD, rotation, mask, cache, index)
        if cache is not None:
            cache.length += time
        if last_only:
            x_BTD = x_BTD[:, -1:]
        x_BTD = self.model.norm(x_BTD)
        matrix = self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight
        return functional.linear(x_BTD, matrix.to(self.compute)).float()

    def new_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for ``length`` positions of ``batch`` rows."""
        config = self.config
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, length, config.head_dim)
        keys, values = (torch.zeros(shape, dtype=self.compute, device=self.device) for _ in range(2))
        return Cache(keys, values)

    def initialise(self, seed: int, scale: float = 0.02) -> None:
        """Normal weights of width ``scale``, those that write to the residual stream narrower by the depth (GPT-2)."""
        generator = torch.Generator().manual_seed(seed)
        narrow = scale / (2 * self.config.num_hidden_layers) ** 0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() < 2:
                    parameter.fill_(1.0)
                    continue
                width = narrow if name.endswith(("o_proj.weight", "down_proj.weight")) else scale
                values = torch.empty(parameter.shape).normal_(0.0, width, generator=generator)
                parameter.copy_(values)

    def _rotation(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        width = self.config.head_dim
        steps = torch.arange(0, width, 2, device=positions_BT.device, dtype=torch.float32) / width
        angles = positions_BT[:, None, :, None].float() * (1.0 / self.config.rope_theta**steps)
        angles_B1TC = torch.cat((angles, angles), dim=-1)
        return angles_B1TC.cos(), angles_B1TC.sin()


def _rotate(x_BHTC: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """RoPE (Su et al. 2021) in Hugging Face's layout: dimension i turns with dimension i + C/2."""
    cos, sin = rotation
    x = x_BHTC.float()
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x_BHTC.dtype)


def _visible(start: int, time: int, padding_B: Tensor | None, device: torch.device) -> Tensor:
    """[B or 1, 1, T, S]: which positions each new position may look at. Padding looks at itself, so that no row of the
    softmax is empty."""
    rows = torch.arange(start, start + time, device=device)[:, None]
    columns = torch.arange(start + time, device=device)[None, :]
    visible = (columns <= rows)[None, None]
    if padding_B is None:
        return visible
    real = columns[None, None] >= padding_B[:, None, None, None]
    return (visible & real) | (columns == rows)[None, None]
