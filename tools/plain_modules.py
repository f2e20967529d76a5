"""The pack's mathematics, importable with no ComfyUI anywhere near: `pack.methods`."""

import sys
from pathlib import Path
from types import ModuleType

if "pack" not in sys.modules:
    sys.modules["pack"] = ModuleType("pack")  # in place of the pack's own entry point, which asks for ComfyUI
    sys.modules["pack"].__path__ = [str(Path(__file__).resolve().parent.parent)]
