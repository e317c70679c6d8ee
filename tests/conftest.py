"""Every run: long files first; what has been imported is put out of the garbage collector's sight, file by file.

why: an engine that closes looks at every object once more, and with torch, transformers and all the tests there are a
million of them: half a second at each of some hundred closes.
"""

import gc

import pytest

gc.disable()  # while the tests are collected: imports leave nothing behind


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of tests/unit/worker, of 10 to 20 s each, before the others: nobody waits for one at the end."""
    items.sort(key=lambda item: "tests/unit/worker/" not in item.nodeid)


def pytest_collection_finish() -> None:
    """From now on as usual."""
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """What the files before left is collected, what they imported stays; what a test leaves is still found."""
    gc.collect()
    gc.freeze()
