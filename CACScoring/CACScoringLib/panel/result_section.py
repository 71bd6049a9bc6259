"""Result of a review: headline, tables of scores and of whole-scan estimates, warnings, and export, also as DICOM."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ..core.errors import CTError, OutputError
from ..core.labels import MAIN_ARTERIES, SITE_COLOURS, Artery
from ..networks.configs import ESTIMATORS
from . import scan_facts, widgets
from .job import BackgroundJob, Steps
from .lifecycle import PanelSection, Signal
from .packages import CLINICAL_REQUIREMENTS, DICOM_REQUIREMENTS, ensurePackages

if TYPE_CHECKING:
    from ..record.scores import NonCoronaryScore
    from ..report.headline import Headline, ScoreTable, WarningLine
    from ..review.scene import SceneReview
    from ..whole_scan.estimates import Agreement, WholeScanEstimate


_NOTE_MILLISECONDS = 15_000
"""Time for which the panel states that results were written or copied."""

_SHORT_TITLES = {"Volume mm³": "mm³", "Mass mg": "mg", "90 % interval": "Interval"}
"""Short titles of columns for a narrow panel, by the full title."""


class ResultSection(PanelSection):
    """Shows the results of a review.

    Attributes:
        decided: Signal with the ID of the lesion that decides the score, and its artery; None if the reader rejects it.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._review: SceneReview | None = None
        for table in (ui.scoreTable, ui.nonCoronaryTable, ui.wholeScanTable):
            widgets.prepareTable(table)
        ui.exportButton.clicked.connect(self._export)
        ui.copyButton.clicked.connect(self._copy)
        ui.compareButton.clicked.connect(self._compare)
        self._noteTimer = widgets.singleShot(_NOTE_MILLISECONDS, self._dropNote)
        self.decided = Signal()
        ui.headLabel.linkActivated.connect(self._linkActivated)

    def setReview(self, review: SceneReview | None) -> None:
        """Show a review's results; None for no result."""
        self._review = review
        self._ui.warningsLabel.setVisible(False)
        for label in (self._ui.exportLabel, self._ui.compareLabel):
            widgets.say(label, "")
        self.update()

    def update(self) -> None:
        """Show the numbers as they are now."""
        review, ui = self._review, self._ui
        self._dropNote()
        ui.headFrame.setVisible(review is not None)
        ui.scoreTable.setVisible(review is not None and not review.is_blind)
        for button in (ui.copyButton, ui.compareButton):
            button.setEnabled(review is not None)
        # They would show a blind reader the networks' score, or a total that tells which scan it is.
        for button in (ui.compareButton, ui.copyButton):
            button.setVisible(review is None or not review.is_blind)
        _showEstimates(ui, review)
        self._showNonCoronary(None if review is None else review.non_coronary)
        if review is None:
            widgets.say(ui.mapLabel, "")
            return
        from ..report import headline

        results = review.results()
        mapped = results.get("decomposition")
        lines = [] if mapped is None else [_("Calcium map: ") + headline.map_sentence(mapped)]
        if (fat := review.epicardial_fat) is not None:
            lines.append(fat.in_words)
        widgets.say(ui.mapLabel, "\n".join(lines))
        warnings = review.warnings
        severe = widgets.severeColour(ui.headLabel)
        confirmation = review.confirmations.get("threshold")
        head = headline.headline(results, review.categories(), warnings, confirmation)
        if review.is_blind:
            listed = results["threshold"].listed if "threshold" in results else ()
            undecided_count = sum(lesion.site == Artery.UNASSIGNED for lesion in listed)
            head = headline.blind_headline(head.reviewed, undecided_count)
        ui.headLabel.setText(_headText(review.nodes.volume.GetName(), head, severe))
        ui.warningsLabel.setText(
            "".join(_warningText(line, severe) for line in headline.warning_lines(warnings, results))
        )
        clinical = results.get("threshold")
        ui.headLabel.setToolTip("" if clinical is None else headline.interval_note(clinical))
        self._showScores(headline.score_table(results))

    def _note(self, text: str) -> None:
        """Show for a while what was done."""
        widgets.say(self._ui.exportLabel, text)
        self._noteTimer.start()

    def _dropNote(self) -> None:
        self._noteTimer.stop()
        widgets.say(self._ui.exportLabel, "")

    def cleanup(self) -> None:
        super().cleanup()
        self._noteTimer.stop()

    def _linkActivated(self, link: str) -> None:
        if link == "more":
            label, area = self._ui.warningsLabel, self._ui.scanArea
            label.setVisible(not label.visible)
            area.verticalScrollBar().setValue(0)
            if label.visible and (around := widgets.scrollAreaAround(area)) is not None:
                around.ensureWidgetVisible(area)  # on a low screen it begins below the panel's edge
        else:
            lesion, artery = map(int, link.split())
            self.decided.emit(lesion, Artery(artery) if artery else None)

    def _showScores(self, scores: ScoreTable) -> None:
        from ..report.headline import MAP_TITLE

        table = self._ui.scoreTable
        titles = [_(_SHORT_TITLES.get(title, title)) for title in scores.titles]
        # The mass is shown without its standard error, which stands in the tooltip.
        rows = [(row.name, *(cell.partition(" ± ")[0] for cell in row.cells)) for row in scores.rows]
        widgets.fillTable(table, titles, rows)
        for column, title in enumerate(scores.titles):
            table.horizontalHeaderItem(column).setToolTip(title)
        faint = qt.QBrush(widgets.faintColour(table))
        for number, row in enumerate(scores.rows):
            if row.site is not None:
                table.item(number, 0).setIcon(widgets.colourIcon(SITE_COLOURS[row.site]))
            for column, (title, cell) in enumerate(zip(scores.titles, (row.name, *row.cells), strict=True)):
                item = table.item(number, column)
                item.setToolTip(f"{title}: {cell}")
                if title == MAP_TITLE:
                    item.setForeground(faint)
                elif row.site is None:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
        widgets.fitColumns(table, stretched=0)

    def _showNonCoronary(self, non_coronary: NonCoronaryScore | None) -> None:
        """Show the scores of non-coronary sites that have calcium."""
        table = self._ui.nonCoronaryTable
        scores = {} if non_coronary is None else non_coronary.scores
        scores = {site: score for site, score in scores.items() if score.lesions}
        table.setVisible(bool(scores))
        if not scores:
            return
        state = _("reviewed") if non_coronary.reviewed else _("not reviewed")
        titles = [_("Outside the arteries\n({state})").format(state=state), _("Clinical\nAgatston"), _("Clinical\nmm³")]
        rows = [[s.full_name, f"{score.agatston:.1f}", f"{score.volume_mm3:.1f}"] for s, score in scores.items()]
        widgets.fillTable(table, titles, rows)

    def _export(self, *_args: object) -> None:
        if reason := ensurePackages(CLINICAL_REQUIREMENTS, purpose=_("A report")):
            widgets.say(self._ui.exportLabel, reason)
            return
        target = widgets.askForNewFolder(f"{self._review.nodes.volume.GetName()}-cac")
        if target is None:
            return
        try:
            self._review.export(target)
        except (CTError, OutputError, OSError) as error:
            widgets.say(self._ui.exportLabel, str(error))
            return
        self._note(_("Written to {folder}").format(folder=target))

    def _compare(self, *_args: object) -> None:
        """Compare the scores, as they are now, with a result in a folder."""
        from ..quality.calibration import stored_repeatability
        from ..record.score_record import read_result
        from ..report.comparison import comparison_as_text
        from ..scoring.comparison import compare

        if not (folder := widgets.askForFolder(_("Folder of the earlier scan's results"))):
            return
        text = ensurePackages(CLINICAL_REQUIREMENTS, purpose=_("A comparison"))
        try:
            record = self._review.as_result(images=False).record
            text = text or comparison_as_text(compare(read_result(Path(folder)), record, stored_repeatability(record)))
        except CTError as error:
            text = str(error)
        widgets.say(self._ui.compareLabel, text)

    def _copy(self, *_args: object) -> None:
        from ..report.files import result_as_copied_text

        review = self._review
        text = result_as_copied_text(review.results(), review.non_coronary)
        qt.QApplication.clipboard().setText(text)
        self._note(_("Copied: paste it into a spreadsheet or a letter."))


def _headText(scan: str, head: Headline, severe_colour: str) -> str:
    """Return a scan's headline as rich text, with a link that opens the warnings. severe_colour: HTML colour."""
    scan, score, state, summary = map(html.escape, (scan, head.score, head.state, head.summary))
    big = f'<span style="font-size:x-large; font-weight:bold">{score}</span>'
    text = f'<p style="margin:0">{big} &nbsp;{state} · <b>{scan}</b><br>{summary}</p>'
    if (decision := head.decision) is not None:
        counts = _("Yes: {score}").format(score=decision.counted)
        rejects = _("No: {score}").format(score=decision.rejected)
        text += (
            f'<p style="margin:0"><b>{html.escape(decision.question)}</b> '
            f'<a href="{decision.lesion} {int(decision.artery)}">{counts}</a> &nbsp;'
            f'<a href="{decision.lesion} 0">{rejects}</a></p>'
        )
    if head.warning is None:
        return text
    more = _("{count} more").format(count=head.more) if head.more else _("why")
    style = f' style="color:{severe_colour}; font-weight:bold"' if head.warning.severe else ""
    line = html.escape(head.warning.line)
    return f'{text}<p style="margin:0"><span{style}>⚠ {line}</span> <a href="more">{more}</a></p>'


def _warningText(warning: WarningLine, severe_colour: str) -> str:
    style = f"; color:{severe_colour}" if warning.severe else ""
    line, why = html.escape(warning.line), html.escape(warning.why)
    return f'<p style="margin:2px 0{style}"><b>⚠ {line}</b> {why}</p>'


def _showEstimates(ui, review: SceneReview | None) -> None:
    """Show a table of the estimates and their agreement with the current scores, and notes on their reliability below.

    Both are hidden without estimates. review: None for no result.
    """
    estimates = () if review is None else review.estimates
    ui.wholeScanTable.setVisible(bool(estimates))
    if not estimates:
        widgets.say(ui.wholeScanLabel, "")
        return
    from ..whole_scan.estimates import TITLES, agreements

    results, by_artery = review.results(), any(estimate.record.agatston for estimate in estimates)
    doubts = {
        network: [warning.message for warning in review.warnings if warning.code in role.doubts]
        for network, role in ESTIMATORS.items()
    }
    columns = [
        [
            *(TITLES[estimate.network], ("⚠ " if doubts[estimate.network] else "") + _predictionText(estimate)),
            *(_agreementText(estimate, agreement) for agreement in agreements(estimate, results).values()),
            *(_arteryScores(estimate) if by_artery else ()),
        ]
        for estimate in estimates
    ]
    # One column per estimate, because a row per estimate would be wider than the panel.
    names = {"threshold": _("Clinical"), "decomposition": _("Map")}
    agree = [_("{method} agrees").format(method=names[method]) for method in results]
    arteries = [artery.key for artery in MAIN_ARTERIES] if by_artery else []
    titles = [_("Whole-scan estimate"), _("Prediction"), *agree, *arteries]
    headings, *rows = zip(titles, *columns, strict=True)
    widgets.fillTable(ui.wholeScanTable, headings, rows)
    for column, estimate in enumerate(estimates, 1):
        ui.wholeScanTable.horizontalHeaderItem(column).setToolTip(estimate.record.model.name)
    lines = [
        " ".join((f"{TITLES[item.network]}:", *(f"⚠ {text}" for text in doubts[item.network]), item.record.trust))
        for item in estimates
    ]
    widgets.say(ui.wholeScanLabel, "\n".join(lines))


def _predictionText(estimate: WholeScanEstimate) -> str:
    from ..core.text import percent

    record, prediction = estimate.record, estimate.prediction
    if prediction is None:
        return _("undetermined")
    if record.total is None:
        return f"{_('calcium') if prediction.calcium else _('none')} ({percent(record.probability)})"
    return f"{record.total:.0f} ({prediction.risk_class})"


def _arteryScores(estimate: WholeScanEstimate) -> list[str]:
    scores = estimate.record.agatston or {}
    return [f"{scores[artery.key]:.0f}" if artery.key in scores else "" for artery in MAIN_ARTERIES]


def _agreementText(estimate: WholeScanEstimate, agreement: Agreement | None) -> str:
    if agreement is None:
        return "" if estimate.record.undetermined else _("not reviewed")
    return ("" if agreement.agrees else "⚠ ") + agreement.text


class DicomSection(PanelSection):
    """Widgets of the DICOM export.

    Attributes:
        added: Signal after objects were added to Slicer's DICOM database.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self.added = Signal()
        self._review: SceneReview | None = None
        cancelled = _("Cancelled. Nothing was written.")
        parts = ui.dicomLabel, ui.dicomBar, ui.dicomButton
        self.job = BackgroundJob(*parts, self._export, cancelled, self.update)

    def setReview(self, review: SceneReview | None) -> None:
        """Export this review; None for no result."""
        self._review = review
        if not self.job.isRunning:
            self.job.say("")
        self.update()

    def update(self) -> None:
        """Show the state."""
        ui, running = self._ui, self.job.isRunning
        self.job.update(self._review is not None)
        for box in (ui.identifyBox, ui.databaseBox):
            box.setEnabled(not running)

    def cancel(self) -> None:
        super().cancel()
        self.update()

    def closeScene(self) -> None:
        self.cancel()

    def _export(self) -> Steps[str | None]:
        from ..review.output import write_dicom

        review, job = self._review, self.job
        files, name_reader = scan_facts.filesOf(review.nodes.volume), self._state.exportIdentify
        if reason := ensurePackages(DICOM_REQUIREMENTS, purpose=_("Export as DICOM")):
            return reason
        if (target := widgets.askForNewFolder(f"{review.nodes.volume.GetName()}-cac-dicom")) is None:
            return None
        job.show(_("Preparing …"), 0.0)
        yield from job.call(write_dicom, review.as_reviewed(), files, target, name_reader)
        count = len(list(target.glob("*.dcm")))
        lines = [_("{count} DICOM objects were written to {folder}.").format(count=count, folder=target)]
        # The box keeps its value while the export runs; the panel's state may be closed by now.
        if self._ui.databaseBox.checked:
            lines.append(scan_facts.addFolder(target))
            self.added.emit()
        return "\n".join([*lines, *(event["message"] for event in job.warnings)])
