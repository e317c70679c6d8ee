import sys

import pytest

from vllm.util.catalog import Catalogue, UnknownName, read_names


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A package `shelf_pkg` with two files, a folder entry and a helper; importing an entry leaves a trace."""
    folder = tmp_path / "shelf_pkg"
    (folder / "lora").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "llama.py").write_text('"""Llama."""\n\nNAMES = ("Llama", "Vicuna")\nVALUE = 1\n')
    (folder / "opt.py").write_text('NAMES: tuple[str, ...] = (\n    "OPT",\n)\nraise RuntimeError("imported")\n')
    (folder / "helper.py").write_text("raise RuntimeError('never imported')\n")
    (folder / "lora" / "__init__.py").write_text("")
    (folder / "lora" / "manifest.py").write_text('NAMES = ("lora",)\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "shelf_pkg"]:
        del sys.modules[name]


def test_listing_imports_nothing(shelf):
    catalogue = Catalogue("shelf_pkg", "model")
    assert catalogue.names() == ["Llama", "OPT", "Vicuna", "lora"]
    assert "OPT" in catalogue and "opt" not in catalogue
    assert not any(name.startswith("shelf_pkg.") for name in sys.modules)
    assert catalogue.module_of("lora") == "shelf_pkg.lora.manifest"
    assert catalogue.load("Vicuna").VALUE == 1


def test_unknown_name_tells_the_nearest(shelf):
    with pytest.raises(UnknownName, match="model 'Lama' is not known; the nearest known is 'Llama'") as caught:
        Catalogue("shelf_pkg", "model").load("Lama")
    assert caught.value.nearest == "Llama"


def test_duplicates_are_an_error(shelf):
    (shelf / "again.py").write_text('NAMES = ("OPT",)\n')
    with pytest.raises(ValueError, match=r"'OPT' is claimed by both shelf_pkg\.again and shelf_pkg\.opt"):
        Catalogue("shelf_pkg").names()


def test_installed_packages_join(shelf, tmp_path):
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shelf_pkg]\nMamba = plug_pkg.mamba\n")
    assert Catalogue("shelf_pkg").module_of("Mamba") == "plug_pkg.mamba"


def test_names_must_be_literal_strings():
    assert read_names("x = 1\n", "m") == ()
    assert read_names('NAMES = ("a", "b")', "m") == ("a", "b")
    for bad in ("NAMES = (1,)", "NAMES = ()", 'NAMES = ("a")'):
        with pytest.raises(ValueError, match="literal tuple"):
            read_names(bad, "m")
