"""Facts of the repository agree in all files that state them, and no dependency is under the GPL."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from cmake_lists import commands
from requirement_closure import EXTRAS, required

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRY = json.loads((ROOT / "CAC.json").read_text(encoding="utf-8"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def citation(key: str) -> str:
    """Top-level value of CITATION.cff, without quotation marks."""
    return re.search(rf'^{key}: "?([^"\n]+)"?$', text("CITATION.cff"), re.MULTILINE)[1]


def extension(name: str) -> str:
    """Value that the root's CMakeLists.txt sets for the extension."""
    (value,) = [
        words[1:] for command, words in commands(ROOT / "CMakeLists.txt") if command == "set" and words[0] == name
    ]
    return " ".join(value).strip('"')


def test_citation_names_the_version_and_the_licence_of_the_package():
    assert (citation("version"), citation("license")) == (PROJECT["version"], PROJECT["license"])


def test_changelog_names_the_version_of_the_package():
    """The version is the first section's or, before the release, in the section Unreleased."""
    title, body = re.search(r"^## \[([^]]+)\].*?$(.+?)^## ", text("CHANGELOG.md"), re.MULTILINE | re.DOTALL).groups()
    assert title == PROJECT["version"] or (title == "Unreleased" and f"version {PROJECT['version']}" in body)


def test_entry_of_the_extensions_index_agrees_with_cmake():
    assert ENTRY["category"] == extension("EXTENSION_CATEGORY")
    assert ENTRY["scm_url"] == extension("EXTENSION_HOMEPAGE") + ".git"
    depends = extension("EXTENSION_DEPENDS")
    assert ENTRY["build_dependencies"] == ([] if depends == "NA" else depends.split())


def test_repository_has_a_single_address():
    home = extension("EXTENSION_HOMEPAGE")
    assert citation("repository-code") == home
    assert all(url.startswith(home) for url in PROJECT["urls"].values())


def test_tests_run_on_every_python_that_is_supported():
    tested = re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.+)\]", text(".github/workflows/tests.yml"))[1])
    claimed = [re.search(r":: (3\.\d+)$", line) for line in PROJECT["classifiers"]]
    assert tested == [match[1] for match in claimed if match]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert tested == [f"3.{minor}" for minor in range(int(low), int(high))]


GPL = re.compile(r"\bA?GPL|(?<!Lesser )General Public License|Affero", re.IGNORECASE)


def licences(package: Distribution) -> list[str]:
    """Licences in a package's metadata: SPDX expression or first line of the free text, and classifiers."""
    fields = package.metadata
    text = (fields.get("License") or "").strip().partition("\n")[0]
    classifiers = [name for name in fields.get_all("Classifier") or [] if name.startswith("License ::")]
    return [fields.get("License-Expression") or text, *classifiers]


def is_gpl(licence: str) -> bool:
    """True if every alternative of a licence is the GPL or AGPL; the LGPL is neither."""
    return all(GPL.search(choice) for choice in licence.split(" OR "))


def test_no_dependency_is_under_the_gpl():
    licences_of = {name: licences(package) for name, package in required(*EXTRAS).items()}
    assert {"numpy", "statsmodels"} <= licences_of.keys()
    assert {name: texts for name, texts in licences_of.items() if any(map(is_gpl, texts))} == {}


@pytest.mark.long
@pytest.mark.parametrize("script", sorted((ROOT / "Testing" / "Benchmarks").glob("*.py")), ids=lambda file: file.stem)
def test_a_benchmark_finds_what_it_imports(script):
    # Run by hand as docs/developer/benchmarks.md says, a script finds those beside it; `cac` forbids that.
    by_hand = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, encoding="utf-8", env=by_hand)
    assert done.returncode == 0, done.stderr
