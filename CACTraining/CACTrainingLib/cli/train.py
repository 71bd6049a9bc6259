"""`cac train NETWORK`: one command with the options that all networks share.

Other parameters are fields of a network's settings, which a preset defines and `--settings` changes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from CACScoringLib.cli.main import require
from CACScoringLib.cli.options import cluster_option, extras_of_cluster, read_settings
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import add_options, argument, changed_settings, option, settings_from

from ..training.settings import LoopSettings, RunOptions, settings_as_json
from .experiments import EXPERIMENTS, LOOP

if TYPE_CHECKING:
    from CACScoringLib.core.progress import Progress

_SHARED = {"workers", "cluster"}
_CT = {"data", "annotator", "start", "devices", *LOOP, *_SHARED}


@dataclasses.dataclass(frozen=True)
class _Network:
    """A network of the command.

    Attributes:
        title: Line of the help.
        module: Module with PRESETS and `train`, or with an experiment that has them.
        options: Options besides the common ones.
    """

    title: str
    module: str
    options: set[str]


NETWORKS = {
    "territories": _Network(
        "network that segments heart, coronary territories, valves and great vessels",
        "training.territories",
        _CT,
    ),
    "lesions": _Network(
        "network that names what is dense: calcium of an artery or elsewhere, a device, noise",
        "training.lesions",
        {"data", "annotator", "workers", *LOOP, "devices", "start"},
    ),
    "slices": _Network("network that classifies slices with calcium", "training.slices", _CT),
    "decomposition": _Network("network that computes the calcium map", "training.decomposition", _CT),
    "super-resolution": _Network(
        "network that computes thin slices from thick ones for radiographs",
        "radiograph.train_super_resolution",
        {"devices", *LOOP, *_SHARED},
    ),
    **{
        name: _Network(experiment.network, experiment.module, {"data", *experiment.of_training})
        for name, experiment in EXPERIMENTS.items()
    },
}

_RESTRICTED = set[str]().union(*(network.options for network in NETWORKS.values()))
"""Options that only some networks have."""


@dataclasses.dataclass(frozen=True)
class _Options:
    """Options besides those of `RunOptions` and `LoopSettings`.

    Attributes:
        network: One of the above.
        settings: Settings that differ from the preset, as a JSON file or as JSON, such as {"loop": {"patience": 8}}.
        grid: Settings with a list for each value, such as {"identity_weight": [1, 10]}: a model is trained with every
            combination and numbered, and MODEL.grid.csv lists what each has on the validation data.
    """

    network: str = argument(choices=NETWORKS, metavar="NETWORK")
    settings: str | None = option(None, metavar="FILE|JSON")
    grid: str | None = option(None, metavar="FILE|JSON")
    cluster: str = cluster_option("prepare scans")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    rows = "\n".join(f"  {name:17} {network.title}" for name, network in NETWORKS.items())
    parser.description = f"Train a network:\n{rows}"
    parser.epilog = "`cac train NETWORK --help` lists the presets and settings of a network."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-h", "--help", action=_Help, help="show this help, or that of the network")
    add_options(parser, _Options, "network")
    add_options(parser, RunOptions, "data", "annotator", "output", "preset")
    add_options(parser, _Options, "settings", "grid")
    add_options(parser, RunOptions, "start", "resume", "overwrite")
    add_options(parser, LoopSettings, "seed", "steps", "minutes")
    add_options(parser, RunOptions, "device", "devices", "workers")
    add_options(parser, _Options, "cluster")
    parser.set_defaults(
        run=run,
        extras=lambda options: (*_extras(options.network), *extras_of_cluster(options)),
        interrupted="Interrupted. Resume with --resume; prepared scans are kept.",
    )


def run(arguments: argparse.Namespace, progress: Progress) -> None:
    """Train by the command's options. Raises CTError, OutputError."""
    network = NETWORKS[arguments.network]
    unused = _RESTRICTED - network.options
    if unknown := sorted(name for name in unused if getattr(arguments, name) not in (None, False)):
        names = ", ".join(f"--{name}" for name in unknown)
        raise OutputError(f"`cac train {arguments.network}` has no {names}. Leave it out.")
    draws = arguments.network in ("territories", "lesions") or arguments.settings is not None
    if "data" in network.options and not arguments.data and not draws:
        raise OutputError("Give scans, a project or a table to learn from with --data.")
    require(*_extras(arguments.network))
    module = _load(arguments.network)
    preset = arguments.preset or next(iter(module.PRESETS))
    if preset not in module.PRESETS:
        raise OutputError(f"There is no preset {preset!r}; choose one of {', '.join(module.PRESETS)}.")
    settings = module.PRESETS[preset]
    if arguments.settings is not None:
        content, folder = read_settings(arguments.settings)
        settings = changed_settings(settings, content, arguments.network, folder)
    settings = settings_from(arguments, settings)
    command = tuple(sys.argv[1:]) if sys.argv[1:2] == ["train"] else ()
    options = RunOptions(
        tuple(arguments.data or ()), arguments.output, preset, workers=os.cpu_count() or 1, command=command
    )
    fields = ("start", "resume", "overwrite", "device", "devices", "workers", "annotator")
    options = settings_from(arguments, options, fields)
    if arguments.grid is None:
        module.train(options, settings, progress)
        return
    from ..training.grid import as_settings, combinations, train_grid

    content, folder = read_settings(arguments.grid)
    trials = [
        (values, changed_settings(settings, as_settings(values), arguments.network, folder))
        for values in combinations(content)
    ]
    train_grid(module.train, options, trials, progress)


def _load(name: str) -> Any:
    """Import a network's module, or its experiment."""
    if name in EXPERIMENTS:
        return EXPERIMENTS[name].load()
    return importlib.import_module(f"CACTrainingLib.{NETWORKS[name].module}")


def _extras(name: str) -> tuple[str, ...]:
    return ("studies", *(EXPERIMENTS[name].extras if name in EXPERIMENTS else ()))


class _Help(argparse._HelpAction):
    """Help of the command; after a network's name, also its presets and settings. Installs nothing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if namespace.network is not None:
            try:
                parser.epilog = settings_help(_load(namespace.network).PRESETS)
            except ModuleNotFoundError as error:
                parser.epilog = (
                    f"Presets and settings are listed once {error.name} is installed; the first training installs it."
                )
        super().__call__(parser, namespace, values, option_string)


def settings_help(presets: Mapping[str, Any]) -> str:
    """Text on the presets of a network and the fields of its settings, with defaults of the first preset."""
    names = list(presets)
    kinds = {type(settings): name for name, settings in reversed(list(presets.items()))}
    lines = [f"presets: {', '.join(names)}"]
    for name in reversed(kinds.values()):
        lines += ["", f"settings, as the preset {name} has them:", *_described(presets[name], "")]
    return "\n".join(lines)


def _described(settings: Any, place: str) -> list[str]:
    """Fields of a dataclass, its docstring, and those of the dataclasses in it."""
    inner = {name: value for name, value in vars(settings).items() if dataclasses.is_dataclass(value)}
    facts = settings_as_json(settings)
    lines = [f"  {place}{name} = {json.dumps(value)}" for name, value in facts.items() if name not in inner]
    text = " ".join((type(settings).__doc__ or "").replace("Attributes:", "").split())
    lines += textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ")
    for name, value in inner.items():
        lines += [f"  {place}{name}:", *_described(value, f"{place}{name}.")]
    return lines
