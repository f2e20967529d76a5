"""Puts on the import path what the lab works with: tools, the tests' models, the reference model, the lab itself."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "lab"
TRAINING = LAB / "training"

sys.path[:0] = [
    str(folder)
    for folder in (LAB, LAB / "evidence", TRAINING, ROOT / "tools", ROOT / "tests/host", ROOT / "tests/reference_model")
    if str(folder) not in sys.path
]
