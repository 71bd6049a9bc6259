"""Fixtures of Segment Editor on a small scan, for the tests of the effects."""

import pytest
from effect_desk import EFFECTS, ROOT, Desk, load_effects

import desktop_host
from desktop_host import errors


@pytest.fixture
def host(monkeypatch):
    desktop_host.install(monkeypatch)
    load_effects(monkeypatch, [ROOT / "CACScoring" / module for module in EFFECTS.values()])


@pytest.fixture
def make_desk(host):
    desks = []

    def make(*arguments) -> Desk:
        desks.append(Desk(*arguments))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()
    errors.raise_errors()


@pytest.fixture
def desk(make_desk):
    return make_desk()
