"""The table of model families: everything this pack knows about each, and nothing else does."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """Successive blocks of one kind: the kind in the host's block-replace key, the model's attribute with them."""

    kind: str
    blocks: str


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        name: what messages call it.
        model_class: full name of the host's class; its subclasses belong to the family too.
        stages: in execution order.
        image: the block argument whose tokens are the picture's, all of them and no others.
        streams: block arguments that blocks update, image tokens among them; a block returns them by these names.
        row_arguments: block arguments with one row per picture in the batch.
    """

    name: str
    model_class: str
    stages: tuple[Stage, ...]
    image: str
    streams: tuple[str, ...]
    row_arguments: tuple[str, ...]

    def block_keys(self, diffusion_model: Any) -> list[tuple[str, int]]:
        """The host's key of every block, in execution order."""
        return [
            (stage.kind, index) for stage in self.stages for index in range(len(getattr(diffusion_model, stage.blocks)))
        ]


FAMILIES = (
    Family(
        name="SD3 / SD3.5",
        model_class="comfy.ldm.modules.diffusionmodules.mmdit.MMDiT",
        stages=(Stage("double_block", "joint_blocks"),),
        image="img",
        streams=("img", "txt"),
        row_arguments=("img", "txt", "vec"),
    ),
)


def family_of(diffusion_model: Any) -> Family:
    """
    Raises:
        ValueError: none of the table.
    """
    lineage = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(diffusion_model).__mro__}
    for family in FAMILIES:
        if family.model_class in lineage:
            return family
    raise ValueError(
        f"Detail Guidance cannot patch this model: its network is {type(diffusion_model).__name__}. "
        f"Supported: {', '.join(family.name for family in FAMILIES)}."
    )
