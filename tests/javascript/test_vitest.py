"""The page's code that knows no page: Vitest runs `*.test.js` beside this file."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))

from provision_page import VITEST  # noqa: E402


def test_with_vitest():
    run = subprocess.run([VITEST, "run", "--root", HERE], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
