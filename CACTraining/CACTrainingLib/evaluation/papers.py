"""Declarations of studies, a file each in Resources/Papers: texts, published figures, findings, and configurations.

A finding is about a figure of the study's tables, or about the difference of two. It holds if its 95 % interval lies
above `Finding.bound`, does not hold if the interval lies below, and cannot be decided otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from CACScoringLib.core.decoding import decoded
from CACScoringLib.core.files import read_json
from CACScoringLib.statistics.bootstrap import BootstrapResult, Estimate, paired_difference

from .parts import PUBLISHED, Cell, Draw, Figure, Section, TablePart, heading

MARGIN = 0.05
"""Difference below a published figure that still confirms it."""

_FOLDER = Path(__file__).parents[1] / "Resources" / "Papers"


@dataclass(frozen=True)
class Quantity:
    """Figure of a study, or the paper's figure that corresponds to it.

    Attributes:
        model: Title of the model.
        measure: Title of a measure of the study.
        row: Key of `Experiment.ROWS`.
        use: Patients, a key of `experiment.USES`.
        spread: True for the standard deviation over the models of the folds instead of their mean.
    """

    model: str
    measure: str
    row: str = ""
    use: str = "validation"
    spread: bool = False


@dataclass(frozen=True)
class Finding:
    """Finding of a paper that a study tests.

    Attributes:
        text: The finding.
        quantity: Figure that it is about.
        minus: Figure to subtract, if any.
        published: The paper's value, if known.
        least: Value to exceed; None for the published one less MARGIN.
    """

    text: str
    quantity: Quantity
    minus: Quantity | None = None
    published: float | None = None
    least: float | None = None

    @property
    def bound(self) -> float:
        """Value that has to be exceeded."""
        return round((self.published or 0.0) - MARGIN, 4) if self.least is None else self.least

    def estimate(self, result_of: Callable[[Quantity], BootstrapResult | None]) -> Estimate | None:
        """Return the figure or difference of a study; None if a model was not trained or tested."""
        first = result_of(self.quantity)
        if self.minus is None or first is None:
            return None if first is None else first.estimate
        second = result_of(self.minus)
        return None if second is None else paired_difference(first, second).estimate

    def verdict(self, estimate: Estimate | None) -> str:
        """Return the answer of a study's interval."""
        if estimate is None:
            return "not tested"
        if estimate.low > self.bound:
            return "holds"
        return "does not hold" if estimate.high < self.bound else f"cannot be decided with n = {estimate.n}"


@dataclass(frozen=True)
class Paper:
    """A paper.

    Attributes:
        title: Authors and year, identifier, and where its figures stand.
        figures: Figures of the paper's models with their values.
        findings: Findings that a study tests.
    """

    title: str
    figures: tuple[tuple[Quantity, float], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class PartText:
    """Texts of a table, figure or section. `{name}` in them is replaced by a value of the study.

    Attributes:
        title: Caption.
        note: Text below a table or figure, or first paragraph of a section.
        published: Published figures of others by measure and method.
    """

    title: str
    note: str = ""
    published: dict[str, dict[str, Cell]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyTexts:
    """Texts of a study's page, and the configurations that it compares.

    Attributes:
        title: Heading of the page.
        explanation: First paragraph of the results.
        papers: Papers that the study repeats.
        parts: Texts of tables, figures and sections by name.
        arms: Configurations that a study of trainings compares: fields that differ from those of the arm `like`.
    """

    title: str
    explanation: str = ""
    papers: tuple[Paper, ...] = ()
    parts: dict[str, PartText] = field(default_factory=dict)
    arms: tuple[dict[str, object], ...] = ()

    def texts(self, name: str, /, **values: object) -> tuple[str, str]:
        """Return the title and note of a part with these values."""
        part = self.parts[name]
        return part.title.format(**values), part.note.format(**values)

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Any], text: str = "", /, **values: object
    ) -> TablePart:
        """Return a table with the texts of its name, or of `text`."""
        title, note = self.texts(text or name, **values)
        return TablePart(name, title, tuple(columns), tuple(rows), note)

    def figure(self, name: str, draw: Draw, size_inches: tuple[float, float], /, **values: object) -> Figure:
        """Return a figure with the texts of its name."""
        title, note = self.texts(name, **values)
        return Figure(name, title, draw, note, size_inches)


def texts_of(study: str) -> StudyTexts:
    """Read the texts of a study by its name."""
    return decoded(read_json(_FOLDER / f"{study}.json"), StudyTexts, study)


def published_figures(papers: Sequence[Paper], use: str) -> dict[str, dict[str, float]]:
    """Return published values on patients of a use by measure, by title of the model and outcome."""
    figures: dict[str, dict[str, float]] = {}
    for paper in papers:
        for quantity, value in (figure for figure in paper.figures if figure[0].use == use):
            parts = (paper.title.split(",")[0], quantity.model, quantity.row)
            figures.setdefault(f"{PUBLISHED}: {', '.join(filter(None, parts))}", {})[quantity.measure] = value
    return figures


def findings_section(
    papers: Sequence[Paper], result_of: Callable[[Quantity], BootstrapResult | None]
) -> tuple[Section, ...]:
    """Return the section on the papers' findings, empty without any. result_of: a study's figure, None if unknown."""
    columns = ("Finding", f"{PUBLISHED} value", "Here", "To exceed", "Verdict")
    rows: list[tuple[Cell, ...]] = []
    for paper in (paper for paper in papers if paper.findings):
        rows.append(heading(paper.title, columns))
        for finding in paper.findings:
            estimate = finding.estimate(result_of)
            verdict = finding.verdict(estimate)
            rows.append((f"  {finding.text}", finding.published, estimate, finding.bound, verdict))
    text = (
        "A finding holds if the 95 % interval of this study lies above the value to exceed, does not hold if it lies "
        "below, and else cannot be decided with so many patients. The value to exceed is that of no effect where the "
        f"paper claims an effect, else the published one less {MARGIN}.",
    )
    table = TablePart("findings", "Findings of the papers, tested on these patients", columns, tuple(rows))
    return (Section("findings", "Findings of the papers", text, (table,)),) if rows else ()
