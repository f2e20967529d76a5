import gc
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.dont_write_bytecode = True

LONGEST = (
    "test_evidence.py",
    "test_page.py",
    "test_families.py",
    "test_layouts.py",
    "test_calibrate.py",
    "test_documents.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first: what starts last keeps one core busy alone."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_looked_through():
    """The host collects garbage at each sampling run, through all that PyTorch and it have imported: more than half of
    the tests' time. What stood before a file's tests is left out."""
    gc.collect()
    gc.freeze()
