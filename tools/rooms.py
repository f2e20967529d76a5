"""The rooms of the pack that need no ComfyUI, importable with none anywhere near: `pack.detail_guidance` and
`pack.instruments`."""

import sys
from pathlib import Path
from types import ModuleType

if "pack" not in sys.modules:
    sys.modules["pack"] = ModuleType("pack")  # in place of the pack's own entry point, which asks for ComfyUI
    sys.modules["pack"].__path__ = [str(Path(__file__).resolve().parent.parent)]

from pack.detail_guidance import massive  # noqa: F401
from pack.detail_guidance.layers import block_at  # noqa: F401
from pack.detail_guidance.rule import ListedChannels, Rule  # noqa: F401
from pack.instruments import matching, metrics  # noqa: F401
