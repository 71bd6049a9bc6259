"""The first picture of the README: what the first command, `cac score --sample`, finds.

It holds the hash of the sample's scores in Testing/regression.json, so that a picture of other scores is stale.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from CACScoringLib.results import ScoreResult

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Resources" / "Screenshots" / "sample.png"
SCORES = ROOT / "Testing" / "regression.json"


def is_stale() -> bool:
    """Return True if the picture is not of the sample's present scores."""
    return not FILE.exists() or _hash().encode() not in FILE.read_bytes()


def write() -> None:
    """Score the sample and draw the picture if it is stale. Raises ValueError if regression.json has other scores."""
    if not is_stale():
        return
    result = _scored()
    for name, method in result.methods.items():
        stated = _stated()["methods"][name]["total"]["clinical_agatston"]
        if abs(method.total.clinical_agatston - stated) > 0.005 * stated:
            raise ValueError(f"regression.json states {stated} ({name}) for the sample. Update it before the picture.")
    content = io.BytesIO()
    draw(result).savefig(content, format="png", dpi=110, metadata={"Description": _hash(), "Software": None})
    FILE.write_bytes(content.getvalue())
    print(f"{FILE.relative_to(ROOT)}: drawn")


def draw(result: ScoreResult) -> Figure:
    """Draw headline, table of scores and largest lesions of a result, as its report shows them."""
    from matplotlib.figure import Figure
    from PIL import Image

    from CACScoringLib.report.headline import headline, score_table
    from CACScoringLib.report.page import largest_pictures

    record = result.record
    top, table = headline(record.methods, record.categories, record.warnings), score_table(record.methods, record.truth)
    pictures = largest_pictures(result)
    figure = Figure((10, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    above.suptitle(f"{top.score}, {top.state}\n{top.summary}", fontsize=11)
    axes = above.add_subplot()
    axes.axis("off")
    rows = [(row.name, *row.cells) for row in table.rows]
    drawn = axes.table(rows, colLabels=table.titles, loc="center", cellLoc="right", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(10)
    drawn.scale(1, 1.4)
    places = below.subplots(1, len(pictures), squeeze=False)[0]
    for picture, place in zip(pictures, places, strict=True):
        place.imshow(Image.open(io.BytesIO(picture.jpeg)))
        title, _, details = picture.caption.partition(" · Agatston ")
        place.set_title(f"{title}\nAgatston {details}" if details else title, fontsize=8, loc="left")
        place.axis("off")
    return figure


def _scored() -> ScoreResult:
    from CACScoringLib.core.progress import Progress
    from CACScoringLib.models.choice import ModelChoice, chosen_models, load_models
    from CACScoringLib.run import RunSettings, ScanInput, read_and_score
    from CACTrainingLib.phantom import make_sample

    models = load_models(chosen_models(ModelChoice(device="cpu")))
    return read_and_score(ScanInput(make_sample), RunSettings(), models, Progress())


def _stated() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return json.loads(SCORES.read_text(encoding="utf-8"))["sample"]["0/scores.json"]


def _hash() -> str:
    return hashlib.sha256(json.dumps(_stated(), sort_keys=True).encode()).hexdigest()
