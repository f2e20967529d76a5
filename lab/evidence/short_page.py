"""The page for people, docs/EVIDENCE.md, of the full one, lab/pages/EVIDENCE.md: claims, verdicts, figures.

    .host/venv/bin/python lab/evidence/short_page.py

`make evidence` writes both.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

ROOT = Path(__file__).resolve().parents[2]
FULL, SHORT = ROOT / "lab/pages/EVIDENCE.md", ROOT / "docs/EVIDENCE.md"

INTERVAL = re.compile(r"[+−-]?[\d.]+ ?%? \([^()]*…[^()]*\)(?: times)?")
SHOWN = {4: "4-guidance.png", 7: "7-settings.png", 13: "13-words.png"}  # section → its picture
SAYS = {"holds": "✔ holds", "contradicted": "✘ contradicted"}
LONGEST = 90  # characters of a figure that is no interval

INTRODUCTION = """# Evidence

What the method's sources say, and what became of it on a **small model of our own**: the [reference
model](../tests/reference_model/README.md), textures of 128 × 128 pixels. What holds here need not hold for SD3 or
Flux, and the reverse; the authors' own figures for those are in their paper. `make evidence` measures everything anew
and writes this page and the [full one](../lab/pages/EVIDENCE.md): methods, all tables, all pictures.

How to read it: Δ is a paired change in *spectrum distance* to real pictures, and smaller is better; in brackets the
95 % interval. A verdict follows from the figures by a rule that was fixed before: *holds*, *holds in part*,
*contradicted*, *inconclusive* (the interval is too wide), *not testable* (the positive control shows nothing either),
*measured* (no claim was at stake). Layers and scales were chosen on other pictures than those that judge. The two
that count most are the primary ones of section 4: **without CFG pictures come closer to real ones, with CFG over the
whole schedule that is not certain; in its last third alone they do.**"""


@dataclass(frozen=True)
class Claim:
    """A part of a section's claim.

    Attributes:
        verdict: as the full page has it.
        figure: the first interval of the verdict's reason, the means of all trainings', or its first words.
    """

    text: str
    verdict: str
    figure: str


def short(full: str) -> str:
    """The page for people of the full page."""
    _, *sections = full.split("\n## ")
    return "\n\n".join([INTRODUCTION, *map(_section, sections)]) + "\n"


def _section(section: str) -> str:
    title, _, body = section.partition("\n")
    number = int(title.partition(".")[0])
    claims = [_claim(*found) for found in re.findall(r"^- \*\*(.+): ([^:*]+)\.\*\* (.+)$", body, re.M)]
    rows = [f"| {each.text} | {SAYS.get(each.verdict, each.verdict)} | {each.figure} |" for each in claims]
    table = "\n".join(["| claim | verdict | figure |", "|---|---|---|", *rows])
    picture = [f"![{title}](../lab/pages/evidence/{SHOWN[number]})"] if number in SHOWN else []
    return "\n\n".join([f"## {title}", table, *picture])


def _claim(text: str, verdict: str, why: str) -> Claim:
    intervals = [*INTERVAL.finditer(why)]
    if not intervals:
        figure = shorten(re.split(r"\.(?= |$)|[;:] | \(", why)[0], LONGEST, placeholder=" …")
    elif "every training" in text:
        figure = " / ".join(each.group().split()[0] for each in intervals)
    else:
        figure = intervals[0].group()
    if intervals and "Δ" in why[: intervals[0].start()]:
        figure = f"Δ {figure}"
    return Claim(text.replace("Detail Guidance", "DG"), verdict.replace(" here", ""), figure.replace("|", "/").strip())


if __name__ == "__main__":
    SHORT.write_text(short(FULL.read_text()))
