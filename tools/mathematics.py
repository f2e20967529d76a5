"""Makes `detail_guidance` importable on its own: the mathematics, with no ComfyUI anywhere near."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "detail_guidance"

if "detail_guidance" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "detail_guidance", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    sys.modules["detail_guidance"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["detail_guidance"])

from detail_guidance import massive, metrics, perceptual  # noqa: E402, F401
from detail_guidance.layers import block_at  # noqa: E402, F401
