"""Running a trained network: device, precision, batches, and what to do when memory runs out.

PyTorch is imported where it is used, so that nothing else waits for it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from ..core.ct import CTError, ScanWarning

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")

HALF_PRECISION = frozenset({"heart", "slices"})
"""Networks that run in bfloat16 where the processor has it. Not the decomposition: it would move the map by 15 HU. Nor
that for territories: of two scans it would name 0.3 % of the voxels otherwise, to save 0.5 of 1.1 s."""

CPU_BATCH = 2
"""Slices or patches at once on a processor, at most. What a layer makes of more than these does not fit its cache, from
where the next layer reads it: maps took 32 ms a slice by eight, and 24 ms by two."""

FEW_CHANNELS = 2
"""Convolutions with so few output channels, the networks' last ones, are computed several voxels at once."""


class DeviceError(CTError):
    """The device that was asked for is not there, or has too little memory for a single patch."""


def choose_device(name: str = "auto") -> str:
    """ "cpu" or "cuda"; "auto" takes CUDA where it works. Raises DeviceError."""
    import torch

    if name not in DEVICES:
        raise DeviceError(f"There is no device {name!r}. Choose one of {', '.join(DEVICES)}.")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("CUDA was requested, but PyTorch finds no usable GPU. Choose --device cpu or auto.")
    return "cuda" if available and name != "cpu" else "cpu"


def bfloat16_is_fast(device: str) -> bool:
    """True if the device computes in bfloat16 itself; elsewhere it is emulated, slowly."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def prepared(network: torch.nn.Module, name: str, device: str) -> torch.nn.Module:
    """The network, in place, made ready to run: eval mode, on its device, in its precision, its layers made faster.

    Batch normalisation is folded, and convolutions of few channels become `several_at_once`: the same function of x.

    Args:
        network: The network.
        name: Key of `networks.van_velzen.NETWORKS`.
        device: "cpu" or "cuda"; where the GPU has no room, the CPU.
    """
    import torch

    from ..networks.van_velzen import fold_batch_norm

    network = fold_batch_norm(network.eval())
    for parent in list(network.modules()):
        for key, layer in list(parent.named_children()):
            if _has_few_channels(layer):
                setattr(parent, key, several_at_once(layer))
    try:
        network = network.to(device)
    except (RuntimeError, MemoryError) as error:
        if device == "cpu" or not _out_of_memory(error):
            raise
        device = "cpu"
        network = network.to(device)
        network.gpu_was_full = True  # for `predict` to report
    if name in HALF_PRECISION and bfloat16_is_fast(device):
        network = network.to(torch.bfloat16)
    for parameter in network.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=_channels_last(parameter))
    return network


def several_at_once(convolution: torch.nn.Conv2d | torch.nn.Conv3d) -> torch.nn.Sequential:
    """The same convolution, five to eight times faster where it has few output channels.

    Processors compute 16 channels at once, so that of one channel 15 are wasted. Here a block of neighbouring outputs
    (4×4 or 2×2×2) is computed as so many channels of a convolution with that stride, and a transposed convolution with
    ones puts them in their places. It adds no rounding. Input sides have to be multiples of the block's.
    convolution: stride 1, padded to keep its input's size.
    """
    import torch

    weight = convolution.weight.detach()
    outputs, inputs, *kernel = weight.shape
    side = 4 if len(kernel) == 2 else 2
    places = list(itertools.product(range(side), repeat=len(kernel)))
    wide = type(convolution)(
        inputs,
        outputs * len(places),
        [k + side - 1 for k in kernel],
        side,
        convolution.padding,
        padding_mode=convolution.padding_mode,
    )
    transposed = torch.nn.ConvTranspose2d if len(kernel) == 2 else torch.nn.ConvTranspose3d
    spread = transposed(outputs * len(places), outputs, side, side, bias=False)
    with torch.no_grad():
        wide.weight.zero_()
        wide.bias.copy_(convolution.bias.repeat_interleave(len(places)))
        spread.weight.zero_()
        for channel, (output, place) in enumerate(itertools.product(range(outputs), places)):
            window = tuple(slice(p, p + k) for p, k in zip(place, kernel, strict=True))
            wide.weight[(channel, slice(None), *window)] = weight[output]
            spread.weight[(channel, output, *place)] = 1
    return torch.nn.Sequential(wide, spread).to(weight)


def predict(
    network: torch.nn.Module, inputs: np.ndarray, batch_size: int
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Run a network on inputs, on the device and in the precision it is in.

    Of neighbouring inputs that are equal, as slices of the networks' grid within one thick slice of a scan are, only
    one is run. When memory runs out, batches are halved; when one item is too much for the GPU, the network moves to
    the CPU and stays there. A warning reports each.

    Returns:
        Its outputs, float32 [n, …], and warnings about memory.

    Raises:
        DeviceError: If one item is too much for the CPU.
    """
    import torch

    network.eval()
    distinct = np.ones(len(inputs), bool)
    distinct[1:] = [(one != other).any() for one, other in itertools.pairwise(inputs)]
    inputs = inputs[distinct]
    outputs: list[np.ndarray] = []
    warnings = [_MOVED] if getattr(network, "gpu_was_full", False) else []
    done, size = 0, _batch_on(_placement(network)[0], batch_size)
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
            warnings.append(
                ScanWarning("smaller-batches", f"Memory ran out; the run continues with batches of {size}.")
            )
        elif device.type != "cpu":
            network.to("cpu", *([] if bfloat16_is_fast("cpu") else [torch.float32]))
            size = _batch_on(_placement(network)[0], batch_size)
            warnings.append(_MOVED)
        else:
            raise DeviceError("There is too little memory to run the networks. Close other programs and try again.")
    if not outputs:
        raise ValueError("There is no input to predict from.")
    return np.concatenate(outputs)[np.cumsum(distinct) - 1], tuple(warnings)


def _batch_on(device: torch.device, batch_size: int) -> int:
    return min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size


_MOVED = ScanWarning("moved-to-cpu", "The GPU's memory is too small; the run continues on the CPU.")

_CHANNELS_LAST = (4, 5)


def _channels_last(tensor: torch.Tensor) -> torch.memory_format:
    import torch

    return torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d


def _has_few_channels(layer: torch.nn.Module) -> bool:
    """True if a layer is a full-resolution one (these have 7×7 or 7×7×7 kernels) of few output channels."""
    import torch

    if not isinstance(layer, torch.nn.Conv2d | torch.nn.Conv3d) or layer.out_channels > FEW_CHANNELS:
        return False
    return set(layer.kernel_size) == {7} and set(layer.stride) == {1}


def _placement(network: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    import torch

    parameter = next(network.parameters(), torch.empty(0))
    return parameter.device, parameter.dtype


def _run(network: torch.nn.Module, batch: np.ndarray) -> np.ndarray:
    import torch

    device, dtype = _placement(network)
    # PyTorch would let GPUs shorten float32 to 10 bits (TF32), so that maps differed from those of the CPU.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(device, dtype)
        return network(x.contiguous(memory_format=_channels_last(x))).float().cpu().numpy()


def _out_of_memory(error: Exception) -> bool:
    import torch

    # The last is what PyTorch says when each of cuDNN's ways ran out of memory.
    texts = ("ALLOC_FAILED", "can't allocate memory", "not enough memory", "out of memory", "unable to find an engine")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)
