"""Models loaded while other work goes on: PyTorch and the weights take seconds, in which a scan can be read."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from .cards import LoadedModel, load_model, read_card

if TYPE_CHECKING:
    import torch


class ModelAhead(LoadedModel):
    """A model whose card is there at once, and whose network a thread loads.

    Who asks for the network waits for it, and gets the ModelError or DeviceError of `load_model`.
    """

    def __init__(self, path: Path, device: str, thread: Executor) -> None:
        """Begin to load. Raises ModelError where the card cannot be read."""
        object.__setattr__(self, "card", read_card(path))  # the class is frozen
        object.__setattr__(self, "_loading", thread.submit(load_model, path, device))

    @property
    def network(self) -> torch.nn.Module:
        return self._loading.result().network
