"""Colours that everyone can tell apart: Okabe and Ito's palette, and what is drawn on it."""

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, GREY = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#999999",
)
BLACK = "#000000"

# Sixteen that can be told apart: the palette, then lighter and darker ones.
SIXTEEN = (
    ORANGE,
    SKY,
    GREEN,
    YELLOW,
    BLUE,
    VERMILION,
    PURPLE,
    GREY,
    "#ffd27f",
    "#b5e0f7",
    "#66c5ab",
    "#8f8a00",
    "#66aad1",
    "#7f3800",
    "#ebc9dc",
    "#4d4d4d",
)


def rgb(colour: str) -> tuple[int, int, int]:
    """ "#e69f00" → (230, 159, 0)."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue
