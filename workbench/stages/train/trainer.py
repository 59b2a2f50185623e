"""One step of training, and validation: pure of files but for the rows they read. Not here: the loop (``stage``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workbench.decoder.config import DecoderConfig
from workbench.decoder.model import Decoder
from workbench.domain.errors import StageFailed
from workbench.stages.train.adamw import AdamW
from workbench.stages.train.flat import FlatParameters, norm
from workbench.stages.train.order import RowOrder
from workbench.stages.train.params import TrainParams
from workbench.stages.train.policy import compute_type
from workbench.stages.train.reduction import Link, PairwiseSum, reduce, share
from workbench.stages.train.schedule import learning_rate
from workbench.tokens.shards import ShardIndex, SplitReader


@dataclass(frozen=True)
class StepResult:
    loss: float  # nats per token, mean over the step
    grad_norm: float  # before clipping
    learning_rate: float
    tokens: int  # that were predicted


def decoder_config(params: TrainParams, index: ShardIndex) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=index.vocab_size,
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.num_layers,
        num_attention_heads=params.num_heads,
        num_key_value_heads=params.num_kv_heads,
        head_dim=params.hidden_size // params.num_heads,
        max_position_embeddings=index.context,
        rope_theta=params.rope_theta,
        pad_token_id=index.pad,
    )


class Trainer:
    """A decoder and its optimizer. All ranks hold the same bits after every step."""

    def __init__(self, params: TrainParams, reader: SplitReader, *, seed: int, link: Link) -> None:
        self.params, self._reader, self._link = params, reader, link
        self._pad = reader.index.pad
        self._order = RowOrder(reader.rows, seed)
        self.decoder = Decoder(decoder_config(params, reader.index), compute=compute_type(params))
        self.decoder.initialise(seed)
        self.decoder.to(params.device)
        self.flat = FlatParameters(self.decoder)
        self.optimizer = AdamW(
            self.flat.weights,
            self.flat.decayed,
            beta1=params.beta1,
            beta2=params.beta2,
            weight_decay=params.weight_decay,
        )

    def step(self, step: int) -> StepResult:
        """Step number ``step``, from 0. StageFailed where a number is not finite; the weights are then as before."""
        params = self.params
        rows = self._order.batch(step, params.batch_rows)
        mine = PairwiseSum()
        for number in share(params.batch_rows // params.micro_rows, self._link):
            mine.add(self._leaf(rows[number * params.micro_rows : (number + 1) * params.micro_rows]))
        total = reduce(mine.total(), self._link)
        loss_sum, tokens = total[-2:].tolist()
        if tokens == 0:
            raise StageFailed(f"step {step} has nothing to predict", "give more data, or a larger batch_rows")
        gradient = total[:-2].div_(tokens)
        loss, grad_norm = loss_sum / tokens, norm(gradient)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise StageFailed(
                f"training diverged at step {step}: loss {loss}, gradient norm {grad_norm}",
                "lower learning_rate or raise warmup_share; the weights of the last checkpoint are still good",
            )
        if grad_norm > params.clip_norm:
            gradient.mul_(params.clip_norm / grad_norm)
        rate = learning_rate(step, params)
        self.optimizer.step(gradient, number=step + 1, learning_rate=rate)
        return StepResult(loss, grad_norm, rate, int(tokens))

    @torch.no_grad()
    def validate(self, reader: SplitReader, rows: Sequence[int]) -> float:
        """Mean loss in nats per token over some rows of another split; nan where there are none."""
        losses: list[float] = []
        tokens = 0
        for start in range(0, len(rows), self.params.micro_rows):
            loss, number = self._loss(reader, rows[start : start + self.params.micro_rows])
            losses.append(loss.item())
            tokens += int(number)
        return math.fsum(losses) / tokens if tokens else math.nan

    def _leaf(self, rows: Sequence[int]) -> Tensor:
        """[P + 2]: the gradient of a micro-batch's summed loss, the loss, the number of tokens it is summed over."""
        self.flat.gradient.zero_()
        loss, tokens = self._loss(self._reader, rows)
        torch.autograd.backward(loss)
        return torch.cat([self.flat.gradient, torch.stack([loss.detach(), tokens.float()])])

    def _loss(self, reader: SplitReader, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        x, y = (torch.from_numpy(part).to(self.params.device) for part in reader.read(rows))
        logits = self.decoder(x)
        loss = functional.cross_entropy(
            logits.view(-1, logits.shape[-1]), y.view(-1), ignore_index=self._pad, reduction="sum"
        )
        return loss, (y != self._pad).sum()
