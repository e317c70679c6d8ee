"""Pages made from the source are as the source; the site has no dead link and loads nothing from elsewhere.

Code blocks: tests/e2e/test_documents.py.
"""

import importlib.util
import os
import re

import pytest

from tools.house import compat, drawings, known, map, site
from tools.house.source import ROOT


def test_the_page_of_flags_is_as_the_command_line():
    assert compat.FILE.read_text("utf-8") == compat.page(), "python -m tools.house compat"


def test_the_page_of_known_faults_is_as_doctor_and_its_tests_exist():
    assert known.missing() == []
    assert known.FILE.read_text("utf-8") == known.page(), "python -m tools.house known"
    assert len(known.SEEDED) >= 50


@pytest.mark.parametrize("name", drawings.PICTURES)
def test_pictures_are_as_drawn(name):
    assert (drawings.FOLDER / f"tour-{name}.svg").read_text("utf-8") == drawings.draw(name), (
        "python -m tools.house drawings"
    )


def test_every_page_is_in_the_index_and_in_the_site():
    index, pages = (ROOT / "docs" / "README.md").read_text("utf-8"), sorted((ROOT / "docs").glob("*.md"))
    for page in pages:
        if page.name != "README.md":
            assert f"({page.name})" in index, f"{page.name} is not in docs/README.md"
            assert f'"{page.name}"' in site.navigation(), f"{page.name} is not in the navigation of tools/house/site.py"


def test_no_page_needs_a_drawing_program():
    for page in ROOT.glob("docs/**/*.md"):
        assert "```mermaid" not in page.read_text("utf-8"), (
            f"{page}: a picture that is drawn by a script from elsewhere"
        )


def test_links_are_kept_inside_of_the_site(tmp_path):
    site.copy(tmp_path)
    for page in (tmp_path / "docs").rglob("*.md"):
        assert not re.search(r"\]\(\.\./\.\./", page.read_text("utf-8")), page
    assert "](CONTRIBUTING.md)" in (tmp_path / "docs" / "tour.md").read_text("utf-8")


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    if importlib.util.find_spec("zensical") is None:
        assert not os.environ.get("CI"), "CI installs the docs extra"
        pytest.skip("zensical is missing: make docs installs it")
    assert site.build(tmp_path / "site") == []
    assert map.FILE.exists()
