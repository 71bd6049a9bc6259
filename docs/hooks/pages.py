"""What the pages show of stored tables and of the code, written into the Markdown, so that every reader has it.

A page asks for a part by a comment, and the part stands between it and `<!-- end -->`:

    <!-- table results/territories.csv: proportion = share | date
    all = all arteries
    -->

    | … |

    <!-- end -->

A figure in a sentence stands between such comments in one line, which must not begin with one (Markdown would take the
line for HTML):

    Its area is <!-- figure models/slices-compact: validation / auc -->.867<!-- end -->.

Parts are `table` (`result_tables`), `calibration`, `checks`, `models`, `people`, `commands`, `dictionary`, `warnings`,
`schema` and `python`. Run as a script (`./cac docs --write`), this writes them into README and pages; as a hook of
MkDocs, it refuses pages in which they are not current.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HOOKS = Path(__file__).parent
ROOT = HOOKS.parents[1]
sys.path[:0] = [str(HOOKS), str(ROOT / "CACScoring"), str(ROOT / "CACTraining")]

import figures  # noqa: E402
import sample_picture  # noqa: E402
from calibration_tables import calibration_as_markdown  # noqa: E402
from column_tables import dictionary_as_markdown  # noqa: E402
from command_tables import commands_as_markdown  # noqa: E402
from model_tables import models_as_markdown  # noqa: E402
from people_summary import summary_as_markdown  # noqa: E402
from python_names import names_as_markdown, names_for_site  # noqa: E402
from result_schema import FILE, link_as_markdown, schema_as_json  # noqa: E402
from result_tables import figure_as_text, table_as_markdown  # noqa: E402
from warning_tables import checks_as_markdown, warnings_as_markdown  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PARTS = {
    "calibration": calibration_as_markdown,
    "checks": lambda _: checks_as_markdown(),
    "commands": lambda _: commands_as_markdown(),
    "dictionary": lambda _: dictionary_as_markdown(),
    "models": lambda _: models_as_markdown(),
    "people": summary_as_markdown,
    "python": names_as_markdown,
    "schema": lambda _: link_as_markdown(),
    "table": table_as_markdown,
    "warnings": lambda _: warnings_as_markdown(),
}
"""Function of each part, of what its comment says after the part's name."""

SCHEMA = ROOT / "docs" / "reference" / FILE

_ASKED = rf"<!-- ({'|'.join(PARTS)})\b(.*?)-->"
_PART = re.compile(rf"({_ASKED})\n(?:(?:(?!<!-- ).)*?\n)??<!-- end -->", re.DOTALL)
_FIGURE = re.compile(r"(?<=[^\n])(<!-- figure ([^\n]*?) -->)[^\n]*?<!-- end -->")


def filled(markdown: str) -> str:
    """Return the Markdown of a page with each part as it is now.

    Raises ValueError if a part or figure cannot be made or has no end, or a figure begins a line.
    """
    if len(re.findall(_ASKED, markdown, re.DOTALL)) != len(_PART.findall(markdown)):
        raise ValueError("A part has no <!-- end --> before the next one.")
    if markdown.count("<!-- figure ") != len(_FIGURE.findall(markdown)):
        raise ValueError("A figure begins a line, or has no <!-- end --> in it.")
    markdown = _FIGURE.sub(lambda found: f"{found[1]}{figure_as_text(found[2])}<!-- end -->", markdown)
    return _PART.sub(lambda found: f"{found[1]}\n\n{PARTS[found[2]](found[3].strip())}\n\n<!-- end -->", markdown)


def write() -> None:
    """Write the parts into all pages, draw figures and the picture of the sample, and write the schema's file."""
    figures.write()
    sample_picture.write()
    SCHEMA.write_text(schema_as_json(), encoding="utf-8")
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        markdown = page.read_text(encoding="utf-8")
        if (now := filled(markdown)) != markdown:
            page.write_text(now, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: written")


def _require_current(name: str, is_current: bool) -> None:
    from mkdocs.exceptions import PluginError

    if not is_current:
        raise PluginError(f"{name} does not show the present code and tables. Run ./cac docs --write, and commit it.")


def on_files(files: Files, **_: object) -> Files:
    """Require that README, figures, the picture of the sample and the schema's file are current."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _require_current("README.md", filled(readme) == readme)
    _require_current(str(sample_picture.FILE.relative_to(ROOT)), not sample_picture.is_stale())
    for name in figures.stale():
        _require_current(f"docs/{name}", False)
    _require_current(f"docs/reference/{FILE}", SCHEMA.read_text(encoding="utf-8") == schema_as_json())
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return the Markdown of a page, in which names of Python become what mkdocstrings writes of them."""
    _require_current(f"docs/{page.file.src_uri}", filled(markdown) == markdown)
    return _PART.sub(lambda found: names_for_site(found[3]) if found[2] == "python" else found[0], markdown)


if __name__ == "__main__":
    write()
