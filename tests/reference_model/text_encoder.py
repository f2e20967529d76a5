"""The reference model's text encoder: a table of word vectors behind ComfyUI's CLIP interface.

It knows only the words of its photographs' names; any other word is an error that lists them.
"""

import re

import torch
from torch import Tensor, nn

LENGTH = 8  # tokens of every prompt, unless the weights say otherwise; token 0 pads
WIDTH = 64


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


class Tokenizer:
    """Words to indices, in the shape ComfyUI passes tokens around: {"words": [[(index, weight), …]]}."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        self.vocabulary: list[str] = (tokenizer_data or {})["vocabulary"]
        self.length: int = (tokenizer_data or {}).get("length", LENGTH)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_):
        words = words_of(text)
        unknown = sorted(set(words) - set(self.vocabulary))
        if unknown:
            raise ValueError(
                f"The reference model does not know the words {', '.join(unknown)}. "
                f"It knows: {', '.join(sorted(self.vocabulary))}."
            )
        if len(words) > self.length:
            raise ValueError(f"The prompt has {len(words)} words; the reference model reads at most {self.length}.")
        indices = [self.vocabulary.index(word) + 1 for word in words]
        return {"words": [[(index, 1.0) for index in indices + [0] * (self.length - len(indices))]]}

    def state_dict(self) -> dict:
        return {}


class TextEncoder(nn.Module):
    """Word vectors plus position vectors; their mean is the pooled output."""

    def __init__(self, vocabulary: int, length: int = LENGTH, dtype=None, device=None, model_options=None):
        super().__init__()
        self.words = nn.Embedding(vocabulary + 1, WIDTH, dtype=dtype, device=device)
        self.positions = nn.Parameter(torch.zeros(length, WIDTH, dtype=dtype, device=device))
        self.dtypes = {dtype}

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (batch, length) → context (batch, length, WIDTH) and pooled (batch, WIDTH)."""
        context = self.words(tokens) + self.positions
        return context, context.mean(dim=1)

    # What ComfyUI's CLIP calls:

    def encode_token_weights(self, tokens) -> tuple[Tensor, Tensor]:
        indices = torch.tensor([[index for index, _ in row] for row in tokens["words"]], device=self.positions.device)
        context, pooled = self(indices)
        return context.float().cpu(), pooled.float().cpu()

    def set_clip_options(self, options) -> None:
        pass

    def reset_clip_options(self) -> None:
        pass

    def load_sd(self, state_dict):
        return self.load_state_dict(state_dict)
