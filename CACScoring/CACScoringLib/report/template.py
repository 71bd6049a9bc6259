"""Pages by the Jinja2 templates in Resources/Report: texts are escaped, and a page needs no other file."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

from ..core.files import OutputError, resource_folder
from ..core.labels import Artery
from ..core.text import RESEARCH_ONLY, percent
from .pictures import SITE_COLOURS

if TYPE_CHECKING:
    import jinja2


def rendered(template: str, title: str, **content: object) -> str:
    """A page. template: name of the file. content: what it shows, by the names that it uses. Raises OutputError."""
    return _environment().get_template(template).render(title=title, **content)


@cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ModuleNotFoundError as error:  # as in Slicer, where the networks' packages were not installed
        raise OutputError("Reports need the package jinja2. Install it (pip install jinja2), and try again.") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_folder("Report")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["RESEARCH_ONLY"] = RESEARCH_ONLY
    environment.filters |= {
        "colour": SITE_COLOURS.__getitem__,
        "data_uri": lambda jpeg: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}",
        "general": "{:g}".format,
        "number": lambda value, digits=0: "–" if value is None else f"{value:.{digits}f}",
        "percent": percent,
    }
    environment.tests["coronary"] = lambda site: isinstance(site, Artery)
    return environment
