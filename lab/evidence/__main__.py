"""Measure the method: `make evidence` writes lab/pages/EVIDENCE.md, of the reference model, with its figures, and
docs/EVIDENCE.md, its claims and verdicts.

Everything is sampled anew from the committed weights; nothing is kept between calls. `--quick` runs every experiment
on a handful of pictures, to see that it runs: its figures mean nothing.

`make evidence MODEL=sd3.5_medium.safetensors PROMPTS="a fox|a street at night" STEPS=28` measures another model of your
ComfyUI, on its device, as far as that needs no training and no real pictures; the page goes to evidence/. MODEL is a
file of models/checkpoints, or one of models/diffusion_models with EVIDENCE="--clip … --clip-type … --vae …" beside it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paths
import torch
from in_process import start
from provision import ROOT

SECTIONS = range(1, 14)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the page (lab/pages/, or evidence/ with --model)")
    own = parser.add_argument_group("the reference model")
    own.add_argument("--quick", action="store_true", help="a handful of pictures")
    own.add_argument("--only", type=int, nargs="+", choices=SECTIONS, default=[*SECTIONS], metavar="N")
    any_model = parser.add_argument_group("another model")
    any_model.add_argument("--model", help="its file name; 10x192 and 4x128, with --size 128, are the reference models")
    any_model.add_argument("--clip", nargs="+", default=[], help="text encoders, where the file has none")
    any_model.add_argument("--clip-type", default="sd3", help="as the host's CLIP loader names it (sd3)")
    any_model.add_argument("--vae", help="where the file has none")
    any_model.add_argument("--prompts", default="", help="separated by |")
    any_model.add_argument("--negative", default="")
    any_model.add_argument("--steps", type=int, default=28)
    any_model.add_argument("--cfg", type=float, default=4.5)
    any_model.add_argument("--size", type=int, default=1024, help="of the square pictures, pixels")
    arguments = parser.parse_args()
    if arguments.model is None and arguments.prompts:
        parser.error("--prompts needs --model: the reference model's are its textures.")
    if arguments.model:
        if arguments.quick or len(arguments.only) < len(SECTIONS):
            parser.error("--quick and --only are the reference model's.")
        start(cpu=not torch.accelerator.is_available())
        import model_page

        model_page.main(arguments, arguments.out or ROOT / "evidence")
        return
    if arguments.out is None and (arguments.quick or len(arguments.only) < len(SECTIONS)):
        parser.error("--quick and --only need --out: the committed page is the whole measurement.")
    start(cpu=True, pytorch_attention=True)  # float32, and the same figures on every machine
    import reference_page
    from laboratory import FULL, QUICK

    reference_page.main(QUICK if arguments.quick else FULL, arguments.only, arguments.out or paths.LAB / "pages")


if __name__ == "__main__":
    main()
