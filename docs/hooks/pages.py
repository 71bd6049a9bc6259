"""A hook of MkDocs: puts into the pages what is generated from the code.

A page asks for it by a comment, which no other reader of the Markdown sees: `<!-- commands -->`, `<!-- dictionary -->`,
`<!-- warnings -->`, `<!-- schema -->`, `<!-- table … -->` (`result_tables`). All of this is in the built site only.
What is generated from the code is as current as the code that is built with, differs between versions of Python, and
would change with every option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from column_tables import dictionary_as_markdown
from command_tables import commands_as_markdown
from result_schema import FILE, link_as_markdown, schema_as_json
from result_tables import with_tables
from warning_tables import warnings_as_markdown

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

GENERATED = {
    "<!-- commands -->": commands_as_markdown,
    "<!-- dictionary -->": dictionary_as_markdown,
    "<!-- warnings -->": warnings_as_markdown,
    "<!-- schema -->": link_as_markdown,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the schema's file to those of the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, f"reference/{FILE}", content=schema_as_json()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """The Markdown of a page with everything in its place."""
    for marker, generate in GENERATED.items():
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    return with_tables(markdown)
