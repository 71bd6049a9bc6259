"""Licences of all dependencies: CAC is Apache-2.0, so none may be under the GPL."""

import re
from importlib.metadata import Distribution

from requirement_closure import EXTRAS, required

GPL = re.compile(r"\bA?GPL|(?<!Lesser )General Public License|Affero", re.IGNORECASE)


def licences(package: Distribution) -> list[str]:
    """Licences in a package's metadata: SPDX expression or first line of the free text, and classifiers."""
    fields = package.metadata
    text = (fields.get("License") or "").strip().partition("\n")[0]
    classifiers = [name for name in fields.get_all("Classifier") or [] if name.startswith("License ::")]
    return [fields.get("License-Expression") or text, *classifiers]


def is_gpl(licence: str) -> bool:
    """True if every alternative of a licence is the GPL or AGPL; the LGPL is neither."""
    return all(GPL.search(choice) for choice in licence.split(" OR "))


def test_no_dependency_is_under_the_gpl():
    licences_of = {name: licences(package) for name, package in required(*EXTRAS).items()}
    assert {"numpy", "statsmodels", "fpdf2"} <= licences_of.keys()
    assert {name: texts for name, texts in licences_of.items() if any(map(is_gpl, texts))} == {}
