"""Graph of a network on its model card: written from the PyTorch module, run by OpenVINO without PyTorch.

Processors run OpenVINO faster than PyTorch. The card holds the graph without weights: each is an input of its name in
the module's state, and becomes a constant from the file of weights when the model is loaded.
"""

from __future__ import annotations

import base64
import re
import sys
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Nothing else in the project imports OpenVINO. Its package brings `openvino_telemetry`, which on import writes a client
# number to the user's home and sends usage statistics. A module that is None here cannot be imported, and OpenVINO then
# takes its own stub.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402
import openvino.opset13 as ops  # noqa: E402

__all__ = ["ops", "ov", "read_graph", "trace", "write_graph"]

EXAMPLE_SIDE = 16
"""Side of the input in pixels or voxels with which a network is traced; the graph takes inputs of other sizes too."""

LARGEST_GRAPH = 2**24
"""Size in bytes beyond which a graph is not unpacked, a hundred times that of the published networks."""

_END = b"</net>"


def write_graph(network: torch.nn.Module) -> str:
    """Return the graph of a network without its weights, as text for its card.

    network: A module on the CPU whose first weight is the kernel [outputs, inputs, …] of a convolution of its input;
        where that takes a part of the channels, the module has `input_channels`.
    """
    import torch

    channels, *kernel = next(network.parameters()).shape[1:]
    channels = getattr(network, "input_channels", channels)
    graph = _converted(trace(network, torch.zeros(1, channels, *[EXAMPLE_SIDE] * len(kernel))))
    graph.reshape([-1, channels] + [-1] * len(kernel))
    _replace_weights_by_inputs(graph, set(network.state_dict()))
    with tempfile.TemporaryDirectory() as folder:
        topology, constants = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
        ov.serialize(graph, topology, constants)
        # Notes on the conversion are left out: they differ from one conversion to the next.
        text = re.sub(rb"\s*<rt_info>.*?</rt_info>|\s*<rt_info />|\n\s*", b"", topology.read_bytes(), flags=re.DOTALL)
        return base64.b64encode(zlib.compress(text + constants.read_bytes(), 9)).decode("ascii")


def _converted(traced: torch.jit.ScriptModule) -> ov.Model:
    """Return the graph of a traced PyTorch module, its weights in constants that keep their names."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)
    model = frontend.load(decoder)
    return frontend.convert(model)


def trace(network: torch.nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
    """Return a network as TorchScript, for inputs of any size."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks of an input's size are not traced, and TorchScript is deprecated
        return torch.jit.trace(network.eval(), example, check_trace=False)


def _replace_weights_by_inputs(graph: ov.Model, names: set[str]) -> None:
    graph.set_friendly_name("network")
    for number, node in enumerate(graph.get_ordered_ops()):
        name = node.get_friendly_name().removeprefix("self.")
        node.set_friendly_name(str(number))
        if node.get_type_name() == "Constant" and name in names:
            weight = ops.parameter(list(node.shape), np.float32)
            weight.set_friendly_name(name)
            node.output(0).replace(weight.output(0))
            graph.add_parameters([weight])


def read_graph(text: str, weights: Mapping[str, np.ndarray]) -> ov.Model:
    """Return the graph of a network with its weights.

    Args:
        text: Graph without weights, from `write_graph`.
        weights: Weights by their names in the module's state.

    Raises:
        ValueError: The graph cannot be read, or the weights do not fit it.
    """
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), LARGEST_GRAPH)
        topology, end, constants = content.partition(_END)
        graph = ov.Core().read_model(topology + end, constants)
    except (ValueError, zlib.error, RuntimeError) as error:
        raise ValueError(f"the graph cannot be read ({error})") from error
    unused = dict(weights)
    for node in graph.get_parameters()[1:]:
        name, shape = node.get_friendly_name(), tuple(node.shape)
        weight = unused.pop(name, None)
        if weight is None or weight.shape != shape:
            state = "missing" if weight is None else f"of shape {weight.shape}"
            raise ValueError(f"{name} is {state} instead of {shape}")
        node.output(0).replace(ops.constant(np.asarray(weight, np.float32)).output(0))
        graph.remove_parameter(node)
    if surplus := [name for name in unused if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"{surplus[0]} belongs to no layer")
    graph.validate_nodes_and_infer_types()
    return graph
