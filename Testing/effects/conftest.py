"""What the tests of the effects share: Segment Editor on a small scan."""

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
    made = []

    def make(*arguments) -> Desk:
        made.append(Desk(*arguments))
        return made[-1]

    yield make
    for desk in made:
        desk.close()
    # What went wrong in an event would only be printed.
    errors.raise_errors()


@pytest.fixture
def desk(make_desk):
    return make_desk()
