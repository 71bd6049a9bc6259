"""A hook of MkDocs: puts into the pages what is generated from the code.

A page asks for it by a comment, which no other reader of the Markdown sees: `<!-- commands -->`, `<!-- warnings -->`.
The generated tables are in the built site only: they are as current as the code
that is built with, differ between versions of Python, and would change with every option.
"""

from command_tables import commands_as_markdown
from warning_tables import warnings_as_markdown

GENERATED = {"<!-- commands -->": commands_as_markdown, "<!-- warnings -->": warnings_as_markdown}


def on_page_markdown(markdown: str, **_: object) -> str:
    """The Markdown of a page with everything in its place."""
    for marker, generate in GENERATED.items():
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    return markdown
