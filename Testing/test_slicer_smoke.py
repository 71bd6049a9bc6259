"""The smoke test that users and packagers run in 3D Slicer, on the stand-in of the desktop."""

import importlib.util
import os
import runpy
import tempfile

import plain_slicer
import pytest
import slicer
from effect_desk import EFFECTS, ROOT, load_effects
from panel_driver import put_slicers_python_on_the_path

import desktop_host

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Slicer's Python is imitated by a shell script")


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Function that starts the stand-in with the modules and without networks, optionally with Slicer's Python as
    worker."""

    def start(main_window: bool = False, worker: bool = False, modules=("CACScoring", "CACTraining")) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        if worker:
            put_slicers_python_on_the_path(tmp_path, monkeypatch)
        else:
            monkeypatch.setenv("PATH", "")
        desktop_host.install(monkeypatch, main_window=main_window)
        for name in modules:
            desktop_host.load(monkeypatch, name)
        load_effects(monkeypatch, [ROOT / "CACScoring" / module for module in EFFECTS.values()])
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))

    yield start
    # Forget the intended failures.
    desktop_host.errors.forget()


def run(capsys) -> tuple[int, str]:
    """Run the smoke test; return exit code and output."""
    runpy.run_path(str(ROOT / "Testing" / "slicer_smoke.py"), run_name="__main__")
    return slicer.app._exit_status, capsys.readouterr().out


class TestSmoke:
    @pytest.mark.long
    @pytest.mark.parametrize("main_window", [True, False], ids=["main window", "no main window"])
    def test_passes(self, start, capsys, main_window):
        start(main_window, worker=True)
        assert run(capsys) == (0, "CAC smoke test: passed\n")
        desktop_host.errors.raise_errors()
        assert slicer.app.commandOptions().runPythonAndExit is False

    def test_a_slicer_without_further_packages_skips_scoring(self, start, capsys, monkeypatch):
        """Pass with the packages of 3D Slicer 5.12.3 alone, as on the dashboards of extensions."""
        plain_slicer.hide_other_packages(monkeypatch)
        start()
        status, text = run(capsys)
        skipped, end = text.splitlines()
        assert skipped == "CAC smoke test: scoring is skipped, because it needs jinja2, psutil"
        assert (status, end) == (0, "CAC smoke test: passed")
        desktop_host.errors.raise_errors()

    @pytest.mark.long
    def test_a_dead_page_fails(self, start, capsys, monkeypatch):
        start()
        from CACTrainingLib.panel import evaluate_section

        monkeypatch.delattr(evaluate_section.EvaluateSection, "update")
        status, text = run(capsys)
        assert status == 1
        assert "CACTraining: AttributeError: 'EvaluateSection' object has no attribute 'update'" in text
        assert text.endswith("failed\n")
