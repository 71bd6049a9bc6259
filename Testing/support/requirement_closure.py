"""Packages that pip would install with CAC, read from the metadata of the installed ones."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "slicer-cac"
EXTRAS = tuple(distribution(PACKAGE).metadata.get_all("Provides-Extra"))


def required(*extras: str) -> dict[str, Distribution]:
    """Distributions of CAC with extras and all their requirements, by canonical name."""
    waiting = [(PACKAGE, extras)]
    distributions: dict[str, Distribution] = {}
    visited = set()
    while waiting:
        name, chosen_extras = waiting.pop()
        if (name, chosen_extras) in visited:
            continue
        visited.add((name, chosen_extras))
        try:
            distributions[name] = distribution(name)
        except PackageNotFoundError:  # an optional package of another platform
            continue
        for text in distributions[name].requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *chosen_extras)):
                waiting.append((canonicalize_name(needed.name), tuple(sorted(needed.extras))))
    return distributions


def importable() -> dict[str, list[str]]:
    """Names that can be imported: with the base (""), with each extra and its requirements, and with "all"."""
    owners = {
        top: {canonicalize_name(name) for name in names if name} for top, names in packages_distributions().items()
    }
    parts = {extra: required(*filter(None, [extra])) for extra in ("", *EXTRAS)}
    names = {extra: [top for top, packages in owners.items() if packages & {*part}] for extra, part in parts.items()}
    return {**names, "all": list(owners)}
