"""Tensors from files that others made, and nothing else from them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from CACScoringLib.core.ct import CTError


class PretrainedError(CTError):
    """A file of pretrained weights cannot be read, or is for another network."""


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """A state dict from a file, of which nothing but tensors is read. Raises PretrainedError when it holds none."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(file.read_bytes())
        except SafetensorError as error:
            raise PretrainedError(f"{file} is not a safetensors file ({error}).") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{file} holds more than tensors, or is not a PyTorch file ({first}). Save its state dict alone."
        raise PretrainedError(message) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise PretrainedError(f"{file} holds no state dict. Save the network's state_dict() alone.")
    return content
