import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import plain_modules  # noqa: F401

settings.register_profile("untimed", deadline=None)  # machines are shared
settings.load_profile("untimed")
