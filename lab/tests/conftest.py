import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paths  # noqa: F401
from in_process import Pack, start

start(cpu=True)  # float32 everywhere, and the same on every machine


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack()
