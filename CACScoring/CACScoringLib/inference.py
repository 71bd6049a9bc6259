"""Running a trained network: device, precision, batches, and what to do when memory runs out.

PyTorch is imported where it is used, so that nothing else waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ct import CTError, ScanWarning

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")

HALF_PRECISION = frozenset({"heart", "slices"})
"""Networks that run in bfloat16 where the processor has it. Not the decomposition: it would move the map by 15 HU."""


class DeviceError(CTError):
    """The device that was asked for is not there, or has too little memory for a single patch."""


def choose_device(name: str = "auto") -> str:
    """ "cpu" or "cuda"; "auto" takes CUDA where it works. Raises DeviceError."""
    import torch

    if name not in DEVICES:
        raise DeviceError(f"There is no device {name!r}. Choose one of {', '.join(DEVICES)}.")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("CUDA was asked for, but PyTorch finds no usable GPU. Choose --device cpu or auto.")
    return "cuda" if available and name != "cpu" else "cpu"


def bfloat16_is_fast(device: str) -> bool:
    """Whether the device computes in bfloat16 itself; elsewhere it is emulated, slowly."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def prepared(network: torch.nn.Module, name: str, device: str) -> torch.nn.Module:
    """The network, in place, made ready to run: eval mode, batch normalisation folded, on its device, in its precision.

    name: key of `networks.NETWORKS`. device: "cpu" or "cuda".
    """
    import torch

    from .networks import fold_batch_norm

    network = fold_batch_norm(network.eval()).to(device)
    if name in HALF_PRECISION and bfloat16_is_fast(device):
        network = network.to(torch.bfloat16)
    for parameter in network.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=_channels_last(parameter))
    return network


def predict(
    network: torch.nn.Module, inputs: np.ndarray, batch_size: int
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """A network's outputs, float32 [n, …], for inputs [n, C, …], on the device and in the precision it is in.

    When memory runs out, batches are halved; when one item is too much for the GPU, the network moves to the CPU and
    stays there. Each is told in a warning. Raises DeviceError when one item is too much for the CPU.
    """
    import torch

    network.eval()
    outputs: list[np.ndarray] = []
    warnings: list[ScanWarning] = []
    done, size = 0, batch_size
    while done < len(inputs):
        try:
            outputs.append(_run(network, inputs[done : done + size]))
            done += size
            continue
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
        # Handled outside the except block, where the failed batch's tensors are no longer kept alive.
        device = _placement(network)[0]
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if size > 1:
            size = max(1, size // 2)
            warnings.append(ScanWarning("smaller-batches", f"Memory ran out; going on with batches of {size}."))
        elif device.type != "cpu":
            network.to("cpu", *([] if bfloat16_is_fast("cpu") else [torch.float32]))
            size = batch_size
            warnings.append(ScanWarning("moved-to-cpu", "The GPU's memory is too small; going on with the CPU."))
        else:
            raise DeviceError("There is too little memory to run the networks. Close other programs and try again.")
    if not outputs:
        raise ValueError("There is nothing to predict from.")
    return np.concatenate(outputs), tuple(warnings)


_CHANNELS_LAST = (4, 5)


def _channels_last(tensor: torch.Tensor) -> torch.memory_format:
    import torch

    return torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d


def _placement(network: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    import torch

    parameter = next(network.parameters(), torch.empty(0))
    return parameter.device, parameter.dtype


def _run(network: torch.nn.Module, batch: np.ndarray) -> np.ndarray:
    import torch

    device, dtype = _placement(network)
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(device, dtype)
        return network(x.contiguous(memory_format=_channels_last(x))).float().cpu().numpy()


def _out_of_memory(error: Exception) -> bool:
    import torch

    known = ("ALLOC_FAILED", "can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in known)
