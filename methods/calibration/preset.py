"""A preset: the layer and the scale that a calibration recommends for one model, and its file."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..detail_guidance.settings import Settings

FORMAT = "detail_guidance.preset"


@dataclass(frozen=True)
class Preset:
    """The layer and scale that a calibration found for one model's weights, and for no others.

    Attributes:
        fingerprint: the fingerprint of the model's weights.
        family, blocks: the model's family and number of blocks, for people.
        verdict: the calibration's verdict, in a few words.
        why: with figures.
        layer, scale, start_percent: the recommended ones; a scale of 0 is Detail Guidance off.
        options: name → value in words, of the `Options` that are not the defaults.
        sampling: name → value in words, of the sampling's settings.
        figures: for each layer and scale that was tried, name → figure.
    """

    fingerprint: str
    family: str
    blocks: int
    verdict: str
    why: str
    layer: float
    scale: float
    start_percent: float
    options: dict[str, str]
    sampling: dict[str, str]
    figures: list[dict[str, str]]

    @property
    def judged(self) -> bool:
        """Whether reference pictures, or a judge's scores, have decided."""
        return self.verdict in ("helps", "does not help")

    @property
    def helps(self) -> bool:
        return self.verdict == "helps"

    def __post_init__(self):
        for name, value in vars(self).items():
            if not _is_right(name, value):
                raise ValueError(f"its {name} is {value!r}")
        Settings(self.scale, self.layer, self.layer, self.start_percent)  # raises where they are none


def _is_right(name: str, value: Any) -> bool:
    """Whether a value has the type of the preset's attribute of this name: files are written by people too."""
    if name in ("layer", "scale", "start_percent"):
        return type(value) in (int, float)
    if name == "blocks":
        return type(value) is int and value > 0
    if name in ("options", "sampling"):
        return _is_table(value)
    if name == "figures":
        return isinstance(value, list) and all(map(_is_table, value))
    return isinstance(value, str)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in (*value, *value.values()))


def save(preset: Preset, file: Path) -> None:
    """Write it as JSON that people can read; at once, so that nobody reads half of it."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"format": FORMAT} | asdict(preset), indent=1, ensure_ascii=False) + "\n", "utf-8")
    part.replace(file)


def load(file: Path) -> Preset:
    """Read a preset's file.

    Raises:
        ValueError: the file is damaged, or no preset.
    """
    try:
        read: Any = json.loads(file.read_text("utf-8"))
        if not isinstance(read, dict) or read.pop("format", None) != FORMAT:
            raise ValueError("it is no preset of Detail Guidance")
        read = {"start_percent": 0.0} | read  # files of 0.11 and before do not say
        names = {field.name for field in fields(Preset)}
        if read.keys() != names:
            raise ValueError(f"it has {', '.join(sorted(read.keys() ^ names))} too much or too little")
        return Preset(**read)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"preset: {file.name} cannot be used ({error}). Calibrate again.") from error
