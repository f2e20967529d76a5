"""Put the provisioned ComfyUI on the import path of a training script, on the CPU unless there is a GPU."""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in (".host/ComfyUI", "tools", "lab", "tests/reference_model")]

from allocator import keep_freed_memory  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
DEVICE = torch.device("cpu" if args.cpu else "cuda")
# Where the processor has to emulate it, bfloat16 is many times slower than float32.
HALF = DEVICE.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
if args.cpu:
    keep_freed_memory()


def initialise(model: torch.nn.Module) -> None:
    """PyTorch's default initialisation: the host's layers are made to be loaded and leave their memory as it was."""
    for module in model.modules():
        for layer in (torch.nn.Linear, torch.nn.Conv2d):
            if isinstance(module, layer):
                layer.reset_parameters(module)
