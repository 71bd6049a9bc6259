"""The packages that pip would install with CAC, read from the metadata of those installed here."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "slicer-cac"
EXTRAS = tuple(distribution(PACKAGE).metadata.get_all("Provides-Extra"))


def required(*extras: str) -> dict[str, Distribution]:
    """The distributions of CAC with some extras, and all that these require, by canonical name."""
    waiting = [(PACKAGE, extras)]
    found: dict[str, Distribution] = {}
    seen = set()
    while waiting:
        name, asked = waiting.pop()
        if (name, asked) in seen:
            continue
        seen.add((name, asked))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # an optional one of another platform
            continue
        for text in found[name].requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *asked)):
                waiting.append((canonicalize_name(needed.name), tuple(sorted(needed.extras))))
    return found


def importable() -> dict[str, list[str]]:
    """Names that can be imported: of the base (""), of each extra with what it requires, and of all installed."""
    owners = {
        top: {canonicalize_name(name) for name in names if name} for top, names in packages_distributions().items()
    }
    parts = {extra: required(*filter(None, [extra])) for extra in ("", *EXTRAS)}
    names = {extra: [top for top, own in owners.items() if own & {*part}] for extra, part in parts.items()}
    return {**names, "all": list(owners)}
