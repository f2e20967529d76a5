"""How dg_scale goes over the guided part of the schedule."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_POINTS = r"\s*[\d.]+\s*:\s*[\d.]+\s*(,\s*[\d.]+\s*:\s*[\d.]+\s*)*"


@dataclass(frozen=True)
class Curve:
    """A share of dg_scale at each place of the guided part, linear between points, constant outside of them.

    Attributes:
        points: (place, share), places rising; both 0 to 1. At 0 the guided part begins, at 1 it ends, in between it
            goes with the noise level. Not all shares are 0.
    """

    points: tuple[tuple[float, float], ...]

    def share(self, place: float) -> float:
        """The share of dg_scale at a place, 0 to 1."""
        return float(np.interp(place, [place for place, _ in self.points], [share for _, share in self.points]))

    def __str__(self) -> str:
        return ", ".join(f"{place:g}:{share:g}" for place, share in self.points)


def parse_curve(text: str | None) -> Curve | None:
    """'0:0.2, 0.5:1' → a curve; nothing → None, dg_scale throughout.

    Raises:
        ValueError: anything else.
    """
    text = text or ""
    if not text.strip():
        return None
    refused = f"curve: {text!r} "
    if not re.fullmatch(_POINTS, text):
        raise ValueError(
            f'{refused}is no list of points place:share such as "0:0, 0.3:1, 1:0.5". Empty is dg_scale throughout.'
        )
    try:
        points = tuple((float(place), float(share)) for place, share in (each.split(":") for each in text.split(",")))
    except ValueError as error:
        raise ValueError(f"{refused}has what is no number: {error}.") from None
    if max(max(point) for point in points) > 1:
        raise ValueError(f"{refused}has a number above 1. Places and shares are 0 to 1; raise dg_scale for more.")
    places = [place for place, _ in points]
    if any(place >= following for place, following in pairwise(places)):
        raise ValueError(f"{refused}has places that do not rise. Write the points from 0, the start, to 1, the end.")
    if not any(share for _, share in points):
        raise ValueError(f"{refused}is 0 everywhere, which is Detail Guidance off. Switch enabled off instead.")
    return Curve(points)
