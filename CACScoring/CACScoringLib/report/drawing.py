"""Figures as PNG and SVG in one style: readable in print, and the same file whenever it is drawn anew."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from matplotlib.typing import RcKeyType

PNG_DPI = 200

DARK = "#1c2529"

SEVERE_RING: dict[str, Any] = {"facecolors": "none", "edgecolors": "#c00000", "linewidths": 0.9, "s": 42}
"""Look of the ring around scans with a severe warning, as arguments of `Axes.scatter`."""

LOOK: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures are the same everywhere
    "font.size": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaec",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.hashsalt": "cac",  # the same study gives the same file
}


def drawn(draw: Callable[[Drawing], None], size_inches: tuple[float, float]) -> dict[str, bytes]:
    """Return a figure's files by their ending: "png" and "svg".

    Args:
        draw: Function that fills an empty matplotlib figure.
        size_inches: Width and height.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    files = {}
    with matplotlib.rc_context(LOOK):
        drawing = Drawing(figsize=size_inches, layout="constrained")
        FigureCanvasAgg(drawing)
        draw(drawing)
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            stream = io.BytesIO()
            drawing.savefig(stream, format=ending, dpi=PNG_DPI, facecolor="white", metadata=metadata)
            files[ending] = stream.getvalue()
    return files
