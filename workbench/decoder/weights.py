"""A decoder's weights as files: ``config.json`` and ``model.safetensors``, float32, Hugging Face's Llama names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workbench.decoder.config import DecoderConfig
from workbench.decoder.model import Decoder
from workbench.domain.errors import Corrupt, NotFound

WEIGHTS_FILE = "model.safetensors"


def save(decoder: Decoder, folder: Path) -> None:
    """Write both files into ``folder``. The same weights give the same bytes."""
    decoder.config.save(folder)
    tensors = {name: value.detach().float().cpu().contiguous().clone() for name, value in decoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load(folder: Path, *, device: str = "cpu", compute: torch.dtype = torch.float32) -> Decoder:
    """The decoder that ``folder`` holds, ready for evaluation. Corrupt when a weight is missing or misshapen."""
    decoder = Decoder(DecoderConfig.load(folder), compute=compute)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise NotFound(f"no {WEIGHTS_FILE} in {folder}", "give the folder of a model")
    try:
        decoder.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise Corrupt(
            f"{WEIGHTS_FILE} does not fit its config.json: {error}", "fetch or train the model again"
        ) from error
    return decoder.to(device).eval()
