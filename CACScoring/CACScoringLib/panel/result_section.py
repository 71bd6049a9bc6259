"""The result: scores of both methods side by side, what they mean, and taking them out of the scene."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from . import table_widgets, widgets
from .lifecycle import Section
from .whole_scan_section import showEstimates

if TYPE_CHECKING:
    from ..core.ct import ScanWarning
    from ..core.labels import Artery
    from ..results import Categories, MethodResult, NonCoronaryResult
    from ..review.scene import SceneReview
    from ..scoring.evidence import LeftOut
    from ..scoring.scores import Score


class ResultSection(Section):
    """Shows the results of a review."""

    def __init__(self, ui) -> None:
        self._ui = ui
        self._review: SceneReview | None = None
        for table in (ui.scoreTable, ui.nonCoronaryTable, ui.wholeScanTable):
            table_widgets.prepareTable(table)
        ui.exportButton.clicked.connect(self._export)
        ui.copyButton.clicked.connect(self._copy)

    def setReview(self, review: SceneReview | None) -> None:
        """review: None where there is no result."""
        self._review = review
        widgets.say(self._ui.exportLabel, "")
        self.update()

    def update(self) -> None:
        """Show the numbers as they are now."""
        review, ui = self._review, self._ui
        for button in (ui.exportButton, ui.copyButton):
            button.setEnabled(review is not None)
        results = {} if review is None else review.results()
        self._showScores(results)
        self._showNonCoronary(None if review is None else review.non_coronary)
        showEstimates(ui, review)
        warnings = () if review is None else review.warnings
        texts = {
            ui.categoriesLabel: "" if review is None else _classes(results.get("threshold"), review.categories()),
            ui.comparisonLabel: _comparison(results),
            ui.severeWarningsLabel: _lines(warning for warning in warnings if warning.severe),
            ui.warningsLabel: _lines(warning for warning in warnings if not warning.severe),
        }
        for label, text in texts.items():
            widgets.say(label, text)
        self._showInterval(results.get("threshold"))

    def _showInterval(self, result: MethodResult | None) -> None:
        """Of the clinical score: a sentence, and a bar below it."""
        label, bar = self._ui.intervalLabel, self._ui.intervalBar
        if result is None:
            widgets.say(label, "")
            bar.setVisible(False)
            return
        from ..report.files import interval_note, interval_sentence
        from ..report.page import interval_bar
        from ..scoring.uncertainty import TOTAL

        sentence, own = interval_sentence(result), result.intervals.get(TOTAL)
        widgets.say(label, sentence and f"{sentence}.")
        if own is None:
            bar.setVisible(False)
            return
        label.setToolTip(interval_note(result))
        ink = label.palette.color(qt.QPalette.WindowText).name()
        drawing = interval_bar(result.total.clinical_agatston, *own.agatston, ink)
        bar.setVisible(widgets.showDrawing(bar, drawing))

    def _showScores(self, results: dict[str, MethodResult]) -> None:
        table = self._ui.scoreTable
        columns = [column for method, result in results.items() for column in _columns(method, result)]
        titles = [_("Artery"), *(title for title, _cell in columns)]
        arteries = [*next(iter(results.values())).arteries, None] if results else []
        lines = [(_("total") if artery is None else artery.key, artery) for artery in arteries]
        rows = [[name, *(cell(artery) for _title, cell in columns)] for name, artery in lines]
        hints = [_mapHint(results.get("decomposition"), artery) for artery in arteries]
        table_widgets.fillTable(table, titles, rows, hints)
        for column in range(table.columnCount if arteries else 0):
            item = table.item(table.rowCount - 1, column)
            font = item.font()
            font.setBold(True)
            item.setFont(font)
        table_widgets.fitColumns(table)

    def _showNonCoronary(self, found: NonCoronaryResult | None) -> None:
        """Calcium outside the coronary arteries, by the sites that have any."""
        table = self._ui.nonCoronaryTable
        scores = {} if found is None else {site: score for site, score in found.scores.items() if score.lesions}
        table.setVisible(bool(scores))
        if not scores:
            return
        state = _("reviewed") if found.reviewed else _("not reviewed")
        titles = [_("Outside the arteries\n({state})").format(state=state), _("Clinical\nAgatston"), _("Clinical\nmm³")]
        rows = [[s.full_name, f"{score.agatston:.1f}", f"{score.volume_mm3:.1f}"] for s, score in scores.items()]
        if found.rules.calibration_mg_per_mm3_hu is not None:
            titles.append(_("Clinical\nmg"))
            rows = [[*cells, f"{score.mass_mg:.1f}"] for cells, score in zip(rows, scores.values(), strict=True)]
        table_widgets.fillTable(table, titles, rows)

    def _export(self, *_args: object) -> None:
        from ..core.ct import CTError
        from ..core.files import OutputError
        from .packages import PAGE_REQUIREMENTS, ensurePackages

        if reason := ensurePackages(PAGE_REQUIREMENTS, purpose=_("A report")):
            widgets.say(self._ui.exportLabel, reason)
            return
        folder = widgets.askForFolder()
        if not folder:
            return
        target = widgets.newFolder(Path(folder), f"{self._review.nodes.volume.GetName()}-cac")
        try:
            self._review.export(target)
        except (CTError, OutputError, OSError) as error:
            widgets.say(self._ui.exportLabel, str(error))
            return
        widgets.say(self._ui.exportLabel, _("Written to {folder}").format(folder=target))

    def _copy(self, *_args: object) -> None:
        from ..review.review import result_as_copied_text

        review = self._review
        text = result_as_copied_text(review.results(), review.non_coronary)
        qt.QApplication.clipboard().setText(text)
        widgets.say(self._ui.exportLabel, _("Copied: paste it into a spreadsheet or a letter."))


def _columns(method: str, result: MethodResult) -> list[tuple[str, Callable[[Artery | None], str]]]:
    """Titles of a method's columns, and what gives the cell of an artery, or of all together (None).

    A cell is empty, not nought, where there is no lesion; but the total of a review is a number. Without a calibration
    the calcium map's mass is a pseudo-mass, by which van Velzen compares scans; the clinical rule's is in the exports
    only.
    """

    def cell(form: Callable[[Score], str]) -> Callable[[Artery | None], str]:
        def text(artery: Artery | None) -> str:
            score = result.total if artery is None else result.arteries[artery]
            return form(score) if score.lesions or (artery is None and result.reviewed) else ""

        return text

    name = {"threshold": _("Clinical"), "decomposition": _("Map")}[method]
    agatston = {"threshold": _("Agatston"), "decomposition": _("Ag. equivalent")}[method]
    columns = [
        (f"{name}\n{agatston}", cell(lambda score: f"{score.clinical_agatston:.1f}")),
        (f"{name}\nmm³", cell(lambda score: f"{score.volume_mm3:.1f}")),
    ]
    if method == "threshold" and result.intervals:
        columns.insert(1, (f"{name}\n90 %", lambda artery: _intervalOf(result, artery).replace(" to ", "–")))
    if result.total.mass_mg is not None:
        columns.append((f"{name}\nmg", cell(lambda score: f"{score.mass_mg:.1f}")))
    elif method == "decomposition":
        columns.append((f"{name}\nHU·mm³", cell(lambda score: f"{score.pseudo_mass_hu_mm3:.0f}")))
    return columns


def _intervalOf(result: MethodResult, artery: Artery | None) -> str:
    """Where the score of an artery, or the total (None), lies nine times of ten; empty where that is unknown."""
    from ..report.files import interval_text
    from ..scoring.uncertainty import TOTAL

    own = result.intervals.get(TOTAL if artery is None else artery.key)
    return "" if own is None else interval_text(*own.agatston)


def _mapHint(result: MethodResult | None, artery: Artery | None) -> str:
    """The calcium map's score on the clinical scale with its interval; empty where that is unknown."""
    interval = "" if result is None else _intervalOf(result, artery)
    if not interval:
        return ""
    score = result.total if artery is None else result.arteries[artery]
    return _("Calcium map, on the clinical scale: {score:.0f}, 90 % interval {interval}").format(
        score=score.clinical_agatston, interval=interval
    )


def _lines(warnings: Iterable[ScanWarning]) -> str:
    """Messages of warnings; here without what only the command line's user can do."""
    own = {
        "unreviewed": _(
            "These candidates are not reviewed: see that each has its artery, move it elsewhere, or reject it."
        ),
        "automatic": _(
            "The clinical score is automatic; nobody has reviewed it. Look at the lesions and at those left out in the "
            "list: there keys 1 to 5 count a lesion, X rejects it, and A accepts the score as it stands."
        ),
        "unassigned-left-out": _("Candidates without an artery do not count. They are marked “out” in the list."),
    }
    return "\n".join(f"⚠ {own.get(warning.code, warning.message)}" for warning in warnings)


def _classes(result: MethodResult | None, categories: Categories | None) -> str:
    """Published classes of a clinical score that a reader or the networks' evidence has told from other calcium."""
    from ..scoring import scores

    if result is None:
        return ""
    score = result.total.agatston
    if categories is None and result.status == "automatic":
        return _("Agatston {score:.1f} (automatic, not reviewed); its classes are withheld.").format(score=score)
    if categories is None:
        return _("Clinical rule: {score:.1f} from unreviewed candidates is not a calcium score.").format(score=score)
    text = _("Agatston {score:.1f} ({status}): class {risk}, CAC-DRS {drs}, arterial age {age:.0f} years").format(
        score=score,
        status=statusText(result),
        risk=categories.risk_class,
        drs=categories.cac_drs,
        age=categories.arterial_age_years,
    )
    if result.no_calcium:
        text = _("Reviewed: no coronary calcium. {score}").format(score=text)
    further = [f", {categories.percentile}"] if categories.percentile is not None else []
    further += [f"; {out}"] if (out := countLeftOut(result.left_out)) else []
    return f"{text}{''.join(further)}. {scores.ROUNDING}"


def statusText(result: MethodResult) -> str:
    """How a method's score came about (see `results.STATUSES`), in a few words."""
    return {
        "reviewed": _("reviewed"),
        "automatic": _("automatic, not reviewed"),
        "candidates": _("candidates, not reviewed"),
    }[result.status]


def countLeftOut(own: LeftOut | None) -> str:
    """How many candidates a score leaves out; empty for none."""
    count = 0 if own is None else len(own.lesions.lesions)
    return _("{count} left out").format(count=count) if count else ""


def agatstonText(method: str, result: MethodResult) -> str:
    """A method's total by its name; of a calcium map first the one that compares with clinical scores, if known."""
    if method == "threshold":
        return _("Agatston {score:.1f}").format(score=result.total.agatston)
    adjusted = _("adjusted Agatston {score:.1f}").format(score=result.total.agatston)
    if result.scaled_agatston is None:
        return adjusted
    scaled = _("about {score:.0f} on the clinical scale").format(score=result.scaled_agatston)
    return f"{scaled} ({adjusted})"


def _comparison(results: dict[str, MethodResult]) -> str:
    """The calcium map's score beside the clinical one."""
    if set(results) != {"threshold", "decomposition"}:
        return ""
    mapped, clinical = results["decomposition"], results["threshold"]
    text = _("Calcium map: {score}").format(score=agatstonText("decomposition", mapped))
    if interval := _intervalOf(mapped, None):
        text += _(", 90 % interval {interval}").format(interval=interval)
    beside = _("clinical rule {score:.1f}").format(score=clinical.total.agatston)
    return f"{text}; {beside} ({statusText(clinical)})."
