"""Names of options, commands and choices up to version 0.2, read as what they are called now.

They stand in no help, and go with the next release.
"""

from __future__ import annotations

from collections.abc import Sequence

COMMANDS = {
    ("radiographs", "sharpen"): ("radiographs", "super-resolution"),
}
OPTIONS = {
    "--others": "--noncoronary-controls",
    "--second-opinion": "--whole-scan",
    "--sharpening": "--super-resolution",
}
SAMPLES = {"clean": "no-calcium", "trap": "aortic-valve"}
VESSEL_NETWORKS = {"summed": "voxel-sum", "summed-shown": "voxel-sum-supervised"}
TABLES = {"sharpening": "super_resolution", "twins": "counterfactual_pairs"}
CHOICES = {"--kind": VESSEL_NETWORKS, "--kinds": VESSEL_NETWORKS, "--only-folds": TABLES, "--tables": TABLES}


def current_names(arguments: Sequence[str]) -> list[str]:
    """The words of a command line, as they are called now."""
    words = list(arguments)
    for old, new in COMMANDS.items():
        if tuple(words[: len(old)]) == old:
            words[: len(old)] = new
    for n, word in enumerate(words):
        option, equals, value = word.partition("=")
        option = OPTIONS.get(option, option)
        if option.startswith("--"):
            words[n] = f"{option}{equals}{_choices(value, CHOICES.get(option, {}))}"
        if option in CHOICES and not equals and n + 1 < len(words):
            words[n + 1] = _choices(words[n + 1], CHOICES[option])
    return words


def _choices(text: str, names: dict[str, str]) -> str:
    """Of one or several choices, with commas between; each may have a value: "twins=2"."""
    parts = [part.partition("=") for part in text.split(",")] if names else [(text, "", "")]
    return ",".join(f"{names.get(name, name)}{equals}{value}" for name, equals, value in parts)
