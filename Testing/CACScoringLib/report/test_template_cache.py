"""Tests of compiled templates: used again, compiled anew when anything changes, and taken from no foreign folder."""

import os

import jinja2
import pytest

from CACScoringLib.report.template_cache import template_cache

OPTIONS = {"autoescape": True}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("CACScoringLib.report.template_cache.user_cache_folder", lambda: tmp_path)
    return tmp_path / "Templates"


def compiled(monkeypatch, source="a{{ b }}", options=OPTIONS):
    """Render a template in a new environment; return True if it was compiled for that."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"a": source}), bytecode_cache=template_cache(options), **options
    )
    calls, compile_source = [], environment.compile
    monkeypatch.setattr(environment, "compile", lambda *parts: calls.append(parts) or compile_source(*parts))
    assert environment.get_template("a").render(b=1) == source.replace("{{ b }}", "1")
    return bool(calls)


def test_a_template_is_compiled_once(folder, monkeypatch):
    assert compiled(monkeypatch)
    assert not compiled(monkeypatch)


@pytest.mark.parametrize("change", [{"source": "c{{ b }}"}, {"options": {"autoescape": False}}])
def test_a_changed_template_or_environment_is_compiled_anew(folder, change, monkeypatch):
    compiled(monkeypatch)
    assert compiled(monkeypatch, **change)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_no_code_is_taken_from_a_folder_that_others_may_write(folder):
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    assert template_cache(OPTIONS) is None


def test_a_folder_that_cannot_be_made_costs_no_report(folder, monkeypatch):
    folder.touch()
    assert template_cache(OPTIONS) is None
    assert compiled(monkeypatch)
