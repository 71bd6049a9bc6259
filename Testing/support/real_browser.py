"""The system's Chromium, for tests of pages as people see them."""

import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next(filter(None, map(shutil.which, NAMES)), None)

NEEDED = [pytest.mark.long, pytest.mark.skipif(EXECUTABLE is None, reason=f"none of {NAMES} is installed")]
"""Marks of tests that need it."""


@contextmanager
def chromium():
    """A browser of playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    # Without a graphics card WebGL is drawn by the processor.
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=EXECUTABLE, args=arguments)
        yield browser
        browser.close()
