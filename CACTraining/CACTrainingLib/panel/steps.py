"""Five steps from scans to an installed model, with a project's progress in each."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from slicer.i18n import tr as _

from CACScoringLib.core.ct import CTError

from ..project.annotations import annotators
from ..project.project import Project
from ..project.work_list import work_list
from .evaluate.study_view import studiesIn

_PAGES = (0, 1, 2, 3, 3)
"""Page of each step: evaluation and installation share one."""


class Steps:
    """A row of links to the pages, each with its state; the next step to take is bold."""

    def __init__(self, ui) -> None:
        self._ui = ui
        ui.stepsLabel.linkActivated.connect(lambda page: ui.pages.setCurrentIndex(int(page)))

    def show(self, project: Project | None, annotator: str = "") -> None:
        """Show a project's progress; None for no project. annotator: whose scans count as done; empty for anybody's."""
        names = (_("Project"), _("Annotate"), _("Train"), _("Evaluate"), _("Install"))
        states = stepStates(project, annotator)
        following = next((n for n, (_state, done) in enumerate(states) if not done), None)
        parts = []
        for n, (name, (state, _done), page) in enumerate(zip(names, states, _PAGES, strict=True)):
            link = f'<a href="{page}">{n + 1} {name}</a>'
            link = f"<b>{link}</b>" if n == following else link
            text = f"{link} <small>{state}</small>" if state else link
            parts.append(text.replace(" ", "&nbsp;").replace("<a&nbsp;", "<a "))
        self._ui.stepsLabel.setText(" · ".join(parts))


def stepStates(project: Project | None, annotator: str = "") -> list[tuple[str, bool]]:
    """Short text on each step, and True if the step is finished. annotator: as of `Steps.show`."""
    from CACScoringLib.models.cards import list_models  # imports SciPy

    from ..training.background import runs_of, state_of

    if project is None:
        return [(_("none open"), False), *[("", False)] * 4]
    scans, models = project.scans, project.models_folder
    try:
        names = [annotator] if annotator else {name for scan in scans for name in annotators(project, scan.id)}
        items = [item for name in names for item in work_list(project, name)]
        annotated = len({item.scan.id for item in items if item.state == "done"})
        installed = sum(model.origin == "user" for model in list_models())
    except (CTError, OSError):
        annotated = installed = 0
    steps = max((state_of(models / f"{name}.training").step for name in runs_of(models)), default=0)
    studies = len(studiesIn(project.studies_folder))
    return [
        (_("{count} scans").format(count=len(scans)), bool(scans)),
        (_("{done} of {count}").format(done=annotated, count=len(scans)), annotated == len(scans) > 0),
        (_("{steps:,} steps").format(steps=steps) if steps else "", steps > 0),
        (_("{count} studies").format(count=studies) if studies else "", studies > 0),
        (_("{count} own models").format(count=installed) if installed else "", installed > 0),
    ]
