"""What all HTML pages of CAC share: one look, and no other file needed."""

from __future__ import annotations

import base64
from html import escape

RESEARCH_ONLY = '<p class="small">For research only. Not a medical device; not for diagnosis or treatment.</p>'

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2529; background: #f3f5f6; margin: 0 }
main { max-width: 1000px; margin: 0 auto; padding: 1.5rem; background: #fff }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } th, td { padding: .3rem .6rem; border-bottom: 1px solid #dde3e6 }
th { text-align: right; font-weight: 600 } td { text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } .facts td { text-align: left; overflow-wrap: anywhere }
.scroll { overflow-x: auto }
.small { color: #56656c; font-size: .85rem } .score { font-size: 1.3rem }
.unreviewed { background: #fff4e0; border-left: 4px solid #ff9100; padding: .7rem 1rem }
.severe { background: #fdecea; border-left: 4px solid #c62828; padding: .7rem 1rem; margin: 1rem 0 }
.warnings li { margin: .3rem 0 } code { font-size: .85em; color: #56656c }
td:first-child { min-width: 11rem }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 50%; border: 1px solid #8a979d }
.pictures { display: flex; flex-wrap: wrap; gap: 12px } figure { margin: 0; width: 320px }
.compared td:last-child, .compared th:last-child { text-align: left; padding-left: 1.2rem }
.compared td:first-child { min-width: 4rem }
.compared th.group { text-align: left; padding: .8rem .6rem .3rem }
.changed { font-weight: 600; color: #a33b00 } .unknown { color: #56656c }
figure img { width: 100%; display: block; background: #000 } figcaption { font-size: .85rem; color: #56656c }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head><body><main>
{body}
</main></body></html>
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole page. title: plain text. body: HTML. style: CSS rules beside the shared ones."""
    return _PAGE.format(title=escape(title), style=STYLE + style, body=body)


def head(*cells: str) -> str:
    """A table's row of titles; cells are HTML."""
    return "<tr>" + "".join(f"<th>{c}</th>" for c in cells) + "</tr>"


def row(*cells: str) -> str:
    """A table's row; cells are HTML."""
    return "<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"


def figure(jpeg: bytes, caption: str) -> str:
    """A picture with its caption, plain text."""
    data = base64.b64encode(jpeg).decode("ascii")
    caption = escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
