"""Whether two versions of the pack sample the same pictures, to the bit.

    .host/venv/bin/python lab/compare_versions.py ../pack-0.12.1

Each version runs in a process of its own, in the provisioned host, on the same tiny models in float32 on the CPU. What
is sampled covers both plans, layers, channels, keep factors, `every`, masks, words, the foreground, batches, CFG,
several families, and the nodes that sample themselves.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paths

FAMILIES = ("SD3", "Flux", "Flux Kontext", "Qwen-Image", "Wan text to video", "Lumina 2", "HunyuanVideo", "AuraFlow")


def main(arguments: argparse.Namespace) -> None:
    theirs, ours = (digests(Path(each).resolve()) for each in (arguments.other, paths.ROOT))
    differing = [name for name in theirs if theirs[name] != ours.get(name)]
    for name in differing:
        print(f"differs: {name}")
    print(f"{len(theirs) - len(differing)} of {len(theirs)} samplings are the same to the bit")
    sys.exit(bool(differing))


def digests(pack: Path) -> dict[str, str]:
    """Name of a sampling → digest of what it gave."""
    command = [sys.executable, __file__, "--sample", pack]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def sample_all(pack_folder: str) -> None:
    """Print the digests of this version as JSON, in the last line."""
    import asyncio

    import in_process

    in_process.start(cpu=True)
    import torch
    from in_process import Pack

    import nodes

    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    assert asyncio.run(nodes.load_custom_node(pack_folder))
    pack = object.__new__(Pack)
    pack.classes = nodes.NODE_CLASS_MAPPINGS
    pack.package = pack.classes["DetailGuider"].__module__.partition(".nodes.")[0]
    found = {}
    for name, run in cases(pack):
        found[name] = digest(run())
        print(name, file=sys.stderr)
    print(json.dumps(found))


def digest(value: Any) -> str:
    import torch

    made = hashlib.sha256()
    for each in value if isinstance(value, list | tuple) else [value]:
        made.update(each.contiguous().numpy().tobytes() if isinstance(each, torch.Tensor) else str(each).encode())
    return made.hexdigest()


def cases(pack: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    import torch
    from family_models import CASES, load
    from models import conditioning, latent, model
    from sampling import detail_guider, sample

    mask = torch.zeros(2, 64, 64)
    mask[0, :32], mask[1, :, 32:] = 1, 0.5
    settings: dict[str, dict[str, Any]] = {
        "default": {},
        "keep": {"keep_start": 0.2, "keep_end": 0.9},
        "channels": {"channels": "3, 17, 40"},
        "every 3": {"every": 3},
        "strength": {"scale_is": "strength"},
        "limit and rescale": {"limit": 0.1, "rescale": 0.5},
        "mask": {"mask": mask},
        "foreground": {"words": pack.run("DetailForeground")},
    }
    for name in FAMILIES:
        case = None if name == "SD3" else CASES[name]
        patcher = model() if case is None else load(name)
        prompts = {} if case is None else {"positive": case.conditioning(1), "negative": case.conditioning(2)}
        for about, options in settings.items():
            for plan in ("together", "in turn"):
                for batch, cfg, layers in ((1, 4.0, (0.5, 0.5)), (2, 1.0, (0.3, 0.8)), (2, 4.0, (0.0, 0.0))):
                    noise = latent(batch, 16, seed=5)["samples"] if case is None else case.noise(batch)
                    inputs = {"layer_start": layers[0], "layer_end": layers[1], "cfg": cfg, "start_percent": 0.1}
                    if about == "mask" and noise.ndim > 4:
                        continue

                    def run(
                        patcher: Any = patcher,
                        options: dict[str, Any] = options,
                        plan: str = plan,
                        inputs: dict[str, Any] = inputs,
                        noise: Any = noise,
                        prompts: dict[str, Any] = prompts,
                    ) -> Any:
                        guider = detail_guider(
                            pack, patcher, {"massive_ratio": 1.5, "batching": plan, **options}, **inputs, **prompts
                        )
                        return sample(guider, noise=noise, steps=5)

                    yield f"{name}, {about}, {plan}, batch {batch}, cfg {cfg:g}, layers {layers}", run
    words_module = "detail_guidance.words" if _is_old(pack) else "methods.regions.words"
    words = pack.module(words_module).Words(("one",), ((1,), (0, 3)), 7, 0.4)
    for plan in ("together", "in turn"):
        yield (
            f"SD3, words, {plan}",
            lambda plan=plan: sample(
                detail_guider(pack, model(), {"batching": plan, "words": words}), batch=2, steps=5
            ),
        )
    given = {"positive": conditioning(1), "negative": conditioning(2), "latent_image": latent(2, 16), "steps": 3}
    for node in ("MassiveActivationProbe", "MassiveActivationMap"):
        yield node, lambda node=node: pack.outputs(node, model=model(), **given)[-1]["samples"]
    whole = {"samples": latent(2, 16)["samples"], "downscale_ratio_spacial": 8}
    for maps in (False, True):
        yield (
            f"DiTFeatures, maps {maps}",
            lambda maps=maps: (
                pack.run(
                    "DiTFeatures", model=model(), positive=conditioning(1), latent=whole, draws=2, maps=maps
                ).values
            ),
        )


def _is_old(pack: Any) -> bool:
    try:
        pack.module("methods")
    except ModuleNotFoundError:
        return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", nargs="?", help="folder of the other version")
    parser.add_argument("--sample", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sample:
        sample_all(given.sample)
    else:
        main(given)
