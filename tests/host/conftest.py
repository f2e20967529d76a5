import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "reference_model"), str(HERE.parents[1] / "tools")]

from in_process import Pack, start  # noqa: E402

start(cpu=True)  # float32 everywhere, and the same on every machine


@pytest.fixture(params=["SD3", "Flux"])
def subject(request):
    """The models that every neighbour is tried on."""
    import models

    return models.subject(request.param)


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack()
