"""Inference with a trained network: device, batches, and recovery from exhausted memory.

On processors the networks that score a scan run in OpenVINO, which starts in a fraction of PyTorch's time and needs
less of the processor. PyTorch runs them on GPUs, and all other networks; it is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import weakref
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ..core.ct import ScanWarning
from ..core.errors import CTError
from ..core.text import DEVICE

if TYPE_CHECKING:
    import openvino
    import torch

DEVICES = ("auto", "cpu", "cuda")

CPU_BATCH = 2
"""Largest batch of slices or patches in PyTorch on a processor: features of more do not fit its cache."""


def check_gpu() -> None:
    """Refuse CUDA without a driver, before PyTorch is installed for it. Raises CTError."""
    if importlib.util.find_spec("torch") is None and shutil.which("nvidia-smi") is None:
        raise CTError(
            f"CUDA was requested, but this computer has no NVIDIA driver (there is no nvidia-smi). Choose {DEVICE}."
        )


def choose_device(name: str = "auto") -> str:
    """Return "cpu" or "cuda"; "auto" is CUDA if there are PyTorch and a GPU. Raises CTError."""
    if name not in DEVICES:
        raise CTError(f"There is no device {name!r}. Choose one of {', '.join(DEVICES)}.")
    has_torch = importlib.util.find_spec("torch") is not None
    if name == "cpu" or (name == "auto" and not (has_torch and shutil.which("nvidia-smi"))):
        return "cpu"  # avoids importing PyTorch, two seconds
    if not has_torch:
        raise CTError(f"CUDA was requested, but PyTorch is not installed. Install torch, or choose {DEVICE}.")
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise CTError(f"CUDA was requested, but PyTorch finds no usable GPU. Choose {DEVICE}.")
    return "cpu"


_threads: int | None = None


def use_threads(count: int) -> None:
    """Run networks that are loaded from now on with this many threads of the processor (default: one per core)."""
    global _threads
    _threads = count
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(count)


@runtime_checkable
class Runner(Protocol):
    """Network that runs without PyTorch."""

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs, float32 [n, …], of inputs float32 [n, …]."""


class ProcessorNetwork:
    """Network on the processor. Runs inputs one by one, several at the same time."""

    def __init__(self, graph: openvino.Model) -> None:
        # The same precision on every processor, so that scores do not depend on it.
        self._options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        if _threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = str(_threads)
        self._graph = graph
        self._compiled: openvino.CompiledModel | None = None
        self._compile()
        _networks.add(self)

    def _compile(self) -> openvino.CompiledModel:
        from .graph import ov

        self._compiled = compiled = ov.Core().compile_model(self._graph, "CPU", self._options)
        return compiled

    def release(self) -> None:
        """End the network's threads, and free its memory, until the next run."""
        self._compiled = None

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs, float32 [n, …], of inputs float32 [n, …]. Raises CTError if memory runs out."""
        # AsyncInferQueue is avoided: its Python callbacks can wait for ever for the thread that frees the network.
        compiled = self._compiled or self._compile()
        count = min(len(inputs), compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        outputs: list[np.ndarray] = []
        try:
            requests = [compiled.create_infer_request() for _ in range(count)]
            for index in range(len(inputs) + count):
                request = requests[index % count]
                if index >= count:
                    request.wait()
                    outputs.append(request.get_output_tensor().data.copy())
                if index < len(inputs):
                    request.start_async([np.ascontiguousarray(inputs[index : index + 1], np.float32)])
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise _too_little_memory() from error
            raise
        return np.concatenate(outputs)


_moved: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
"""Networks on the processor because the GPU's memory was full, for `predict` to report."""

_networks: weakref.WeakSet[ProcessorNetwork] = weakref.WeakSet()


def _release_all() -> None:
    for network in list(_networks):
        network.release()


# A forked process lacks its parent's threads, for which a network would wait for ever.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_release_all)


def prepared(network: torch.nn.Module, device: str) -> torch.nn.Module:
    """Prepare a network in place for PyTorch: eval mode, on its device.

    device: "cpu" or "cuda"; falls back to the CPU if the GPU's memory is full.
    """
    network = network.eval()
    try:
        network = network.to(device)
    except (RuntimeError, MemoryError) as error:
        if device == "cpu" or not is_out_of_memory(error):
            raise
        network = network.to("cpu")
        _moved.add(network)
    for parameter in network.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=_channels_last(parameter))
    return network


def predict(
    network: Runner | torch.nn.Module, inputs: np.ndarray, batch_size: int
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Run a network on inputs.

    Args:
        network: The network, on its device.
        inputs: float32 [n, …].
        batch_size: Largest batch on a GPU.

    Returns:
        Its outputs, float32 [n, …], and warnings about memory.

    Raises:
        CTError: If one item is too much for the processor's memory.
        CTError: If an output is not finite.
    """
    if not len(inputs):
        raise ValueError("There is no input to predict from.")
    warnings: tuple[ScanWarning, ...] = ()
    if isinstance(network, Runner):
        outputs = network.run(inputs)
    else:
        outputs, warnings = _by_torch(network, inputs, batch_size)
    if not np.isfinite(outputs).all():
        raise CTError(
            "The output of a network is not finite, so its model cannot be used. Use another model, or train it again."
        )
    return outputs, warnings


def _by_torch(
    network: torch.nn.Module, inputs: np.ndarray, batch_size: int
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Run a PyTorch network on inputs, see `predict`.

    Halves batches when memory runs out, and moves the network to the CPU for good when a single item is too much for
    the GPU, each with a warning.
    """
    import torch

    network.eval()
    outputs: list[np.ndarray] = []
    warnings = [_MOVED] if network in _moved else []
    start, size = 0, _batch_on(_device(network), batch_size)
    while start < len(inputs):
        try:
            outputs.append(_run(network, inputs[start : start + size]))
            start += size
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block, which keeps the failed batch's tensors alive.
        device = _device(network)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if size > 1:
            size = max(1, size // 2)
            warnings.append(
                ScanWarning("smaller-batches", f"Memory ran out; the run continues with batches of {size}.")
            )
        elif device.type != "cpu":
            network.to("cpu")
            size = _batch_on(_device(network), batch_size)
            warnings.append(_MOVED)
        else:
            raise _too_little_memory()
    return np.concatenate(outputs), tuple(warnings)


def _batch_on(device: torch.device, batch_size: int) -> int:
    return min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size


_MOVED = ScanWarning("moved-to-cpu", "The GPU's memory is too small; the run continues on the CPU.")

_CHANNELS_LAST = (4, 5)


def _channels_last(tensor: torch.Tensor) -> torch.memory_format:
    import torch

    return torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d


def _device(network: torch.nn.Module) -> torch.device:
    import torch

    return next(network.parameters(), torch.empty(0)).device


def _run(network: torch.nn.Module, batch: np.ndarray) -> np.ndarray:
    import torch

    # TF32 would shorten float32 to 10 bits on GPUs, and maps would differ from those of the CPU.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(_device(network))
        return network(x.contiguous(memory_format=_channels_last(x))).float().cpu().numpy()


def _too_little_memory() -> CTError:
    return CTError("There is too little memory to run the networks. Close other programs and try again.")


def is_out_of_memory(error: Exception) -> bool:
    """True if an error of PyTorch or OpenVINO says that a device's memory is full."""
    # "unable to find an engine" is PyTorch's if each of cuDNN's algorithms ran out of memory, "bad_alloc" OpenVINO's.
    texts = (
        "ALLOC_FAILED", "can't allocate memory", "not enough memory", "out of memory", "unable to find an engine",
        "bad_alloc",
    )  # fmt: skip
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
