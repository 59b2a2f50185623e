"""The forward pass against a reference in numpy, its gradient against differences, its cache against no cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from workbench.decoder.config import DecoderConfig
from workbench.decoder.model import Decoder

Array = npt.NDArray[np.float64]


def reference(weights: dict[str, Array], config: DecoderConfig, ids: list[int]) -> Array:
    """Logits [T, V] in float64, position by position and head by head, as the papers have it."""
    width, shared = config.head_dim, config.num_attention_heads // config.num_key_value_heads

    def norm(x: Array, name: str) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weights[name]

    def rotate(x: Array) -> Array:
        out = np.empty_like(x)
        for position in range(len(x)):
            for i in range(width // 2):
                angle = position * config.rope_theta ** (-2 * i / width)
                a, b = x[position, i], x[position, i + width // 2]
                out[position, i] = a * np.cos(angle) - b * np.sin(angle)
                out[position, i + width // 2] = b * np.cos(angle) + a * np.sin(angle)
        return out

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."
        h = norm(x, at + "input_layernorm.weight")
        q, k, v = (h @ weights[f"{at}self_attn.{name}_proj.weight"].T for name in "qkv")
        heads = []
        for head in range(config.num_attention_heads):
            mine, theirs = slice(head * width, (head + 1) * width), head // shared
            other = slice(theirs * width, (theirs + 1) * width)
            scores = rotate(q[:, mine]) @ rotate(k[:, other]).T / np.sqrt(width)
            scores[np.triu_indices(len(ids), 1)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, other])
        x = x + np.concatenate(heads, -1) @ weights[at + "self_attn.o_proj.weight"].T
        h = norm(x, at + "post_attention_layernorm.weight")
        gate = h @ weights[at + "mlp.gate_proj.weight"].T
        up = h @ weights[at + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[at + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ weights["model.embed_tokens.weight"].T


def ids_of(seed: int, batch: int, time: int) -> torch.Tensor:
    return torch.randint(0, 61, (batch, time), generator=torch.Generator().manual_seed(seed))


def test_logits_are_those_of_the_reference(decoder: Decoder) -> None:
    ids = ids_of(0, 2, 17)
    weights = {name: value.double().numpy() for name, value in decoder.state_dict().items()}
    with torch.no_grad():
        logits = decoder(ids).numpy()
    for row in range(2):
        np.testing.assert_allclose(logits[row], reference(weights, decoder.config, ids[row].tolist()), atol=2e-4)


def test_no_position_sees_what_comes_after_it(decoder: Decoder) -> None:
    ids = ids_of(1, 1, 12)
    changed = ids.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 61
    with torch.no_grad():
        assert torch.equal(decoder(ids)[:, :8], decoder(changed)[:, :8])


def test_with_a_cache_the_logits_are_those_without(decoder: Decoder) -> None:
    ids = ids_of(2, 3, 20)
    cache = decoder.new_cache(3, 20)
    with torch.no_grad():
        parts = [decoder(ids[:, :7], cache=cache), decoder(ids[:, 7:12], cache=cache)]
        parts += [decoder(ids[:, at : at + 1], cache=cache) for at in range(12, 20)]
        torch.testing.assert_close(torch.cat(parts, 1), decoder(ids), atol=1e-4, rtol=1e-4)


def test_padding_at_the_left_changes_nothing(decoder: Decoder) -> None:
    ids = ids_of(3, 1, 9)
    padded = torch.cat([torch.full((1, 5), decoder.config.pad_token_id), ids], 1)
    with torch.no_grad():
        found = decoder(padded, padding_B=torch.tensor([5]))[:, 5:]
        torch.testing.assert_close(found, decoder(ids), atol=1e-4, rtol=1e-4)


def test_the_gradient_is_the_slope_of_the_loss(decoder: Decoder) -> None:
    x, y = ids_of(4, 2, 10), ids_of(5, 2, 10)

    def loss() -> torch.Tensor:
        return functional.cross_entropy(decoder(x).view(-1, 61), y.view(-1))

    loss().backward()
    generator = torch.Generator().manual_seed(6)
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, generator=generator)
        direction /= direction.norm()
        expected = (parameter.grad * direction).sum().item()
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                parameter += sign * 1e-2 * direction
                values.append(loss().item())
            parameter += 1e-2 * direction
        slope = (values[0] - values[1]) / 2e-2
        assert slope == pytest.approx(expected, abs=2e-3, rel=2e-2), name


def test_bfloat16_keeps_float32_weights_and_is_near(decoder: Decoder) -> None:
    half = Decoder(decoder.config, compute=torch.bfloat16)
    half.load_state_dict(decoder.state_dict())
    ids = ids_of(7, 1, 12)
    with torch.no_grad():
        logits = half(ids)
        assert logits.dtype == torch.float32
        assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
        assert (logits - decoder(ids)).abs().max() < 0.05 * decoder(ids).abs().max()


def test_weights_depend_on_the_seed_alone(decoder: Decoder) -> None:
    again, other = Decoder(decoder.config), Decoder(decoder.config)
    again.initialise(1, scale=0.3)
    other.initialise(2, scale=0.3)
    name = "model.embed_tokens.weight"
    assert torch.equal(again.state_dict()[name], decoder.state_dict()[name])
    assert not torch.equal(other.state_dict()[name], decoder.state_dict()[name])
