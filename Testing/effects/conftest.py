"""What the tests of the effects share: Segment Editor on a small scan."""

import sys

import pytest
import slicer

import desktop_host
from desktop_host import errors
from effect_desk import EFFECTS, ROOT, Desk


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
    for module in EFFECTS.values():
        monkeypatch.syspath_prepend(str(ROOT / "CACScoring" / module))
        # Its classes are those of this stand-in.
        for name in [name for name in sys.modules if name.split(".")[0] == f"{module}Lib"]:
            monkeypatch.delitem(sys.modules, name)
        desktop_host.load(monkeypatch, module)
    slicer.app.startupCompleted.emit()


@pytest.fixture
def make_desk(host):
    made = []

    def make(*arguments) -> Desk:
        made.append(Desk(*arguments))
        return made[-1]

    yield make
    for desk in made:
        desk.editor.setActiveEffect(None)
        desk.editor.removeViewObservations()
    # What went wrong in an event would only be printed.
    errors.raise_errors()


@pytest.fixture
def desk(make_desk):
    return make_desk()
