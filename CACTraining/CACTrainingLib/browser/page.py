"""Where the files of the page are, and the page that says why there is none."""

from __future__ import annotations

from html import escape
from pathlib import Path


def page_folder() -> Path:
    """Folder of the page's files."""
    return Path(__file__).resolve().parents[1] / "Resources" / "Review"


def refusal_page(reason: str) -> str:
    """HTML that says why a page cannot be shown."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CAC review</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/review.css"></head>'
        '<body class="list"><header><h1>CAC review</h1></header>'
        f'<main><p>{escape(reason)}</p><p><a href="/">Work list</a></p></main></body></html>'
    )
