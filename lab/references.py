"""Real pictures as a perfect diffusion model would draw them: through the reference model's autoencoder. The evidence
and the demo compare with these."""

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import comfy.latent_formats  # isort: skip

REALS_EACH = 8  # real pictures of its prompt that a picture is compared with


class Autoencoder:
    """
    Args:
        reference_model: the package as ComfyUI loads it.
        textures: the photographs that its encoder was made of.
    """

    def __init__(self, reference_model: ModuleType, textures: dict[str, Tensor]):
        import patch_pca  # of the training

        self.vae = reference_model.load_vae()
        self.vae.first_stage_model.to(memory_format=torch.channels_last)  # a third faster
        self.encoder = patch_pca.fit(textures)  # what the autoencoder's encoder computes, at once
        self.format = comfy.latent_formats.SD3()

    def decoded(self, latents: Tensor) -> np.ndarray:
        """(pictures, height, width, 3), 0 to 1."""
        return self.vae.decode(latents).clamp(0, 1).numpy()

    @torch.inference_mode()
    def reconstructed(self, pictures: Tensor) -> np.ndarray:
        """Real pictures (n, 3, height, width) as the autoencoder gives them back, (n, height, width, 3)."""
        return self.decoded(self.format.process_out(self.encoder.encode(pictures)))
