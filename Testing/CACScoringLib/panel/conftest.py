"""Fixtures that open the panel in the desktop host, for tests that mirror CACScoringLib/panel."""

import tempfile

import panel_results
import pytest
import slicer
from panel_driver import Driver, put_slicers_python_on_the_path

import desktop_host
from CACScoringLib.mrml import scene as mrml


@pytest.fixture
def main_window(request):
    """True if the desktop host draws views, as the marker says; most tests need none and are faster without."""
    return request.node.get_closest_marker("main_window") is not None


@pytest.fixture
def panel(monkeypatch, tmp_path, main_window):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return desktop_host.load_panel(monkeypatch, "CACScoring", main_window=main_window)


@pytest.fixture(scope="module")
def shared_panel(tmp_path_factory):
    """The loaded panel without views, for a file's tests that need no empty application each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("shared-panel")))
        yield desktop_host.load_panel(patch, "CACScoring", main_window=False)


@pytest.fixture
def volume(panel):
    return mrml.add_volume(slicer.mrmlScene, panel_results.chest_image(), "chest")


@pytest.fixture
def open_panel(panel):
    """Function that opens the panel; it is closed in the end as the application does."""
    opened = []

    def make() -> Driver:
        opened.append(Driver())
        opened[-1].state.method = type(opened[-1].state.method).CLINICAL_RULE
        return opened[-1]

    yield make
    if opened:
        desktop_host.close_panel("CACScoring")


@pytest.fixture
def driver(open_panel, volume):
    return open_panel()


@pytest.fixture
def questions(monkeypatch):
    """Questions that the panel asks, as in an application in use."""
    listed = Questions()
    monkeypatch.setattr(slicer.app, "_testing", False)
    monkeypatch.setattr("CACScoringLib.panel.widgets.askBefore", listed.ask)
    return listed


class Questions(list):
    """Texts of questions. answer: Text of the button that is pressed; empty for *Cancel*."""

    answer = ""

    def ask(self, title, question, proceed, alternative=""):
        self.append(f"{title}: {question} [{alternative}] [{proceed}]")
        return self.answer


@pytest.fixture
def slicers_python(tmp_path, monkeypatch):
    put_slicers_python_on_the_path(tmp_path, monkeypatch)
