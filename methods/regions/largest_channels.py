"""Reading the largest channels of the picture's tokens at one block's input, while the model computes what it would
compute anyway."""

from collections.abc import Collection
from uuid import UUID

from ...dit.families import Anatomy
from ...dit.forward import Args, Chunk, Inner, Patch, by_key
from ...dit.token_layout import Block, Key, Reading, Stage
from ..common.layers import block_at
from .attention import Shown
from .foreground import Foreground, largest_channels


def reading_foreground(
    sought: Foreground,
    of_model: Anatomy,
    reading: Reading,
    wanted: Collection[UUID],
    shown: Shown,
    follow: bool,
) -> dict[Key, Patch]:
    """Block patches that show the channels' values, for every condition of `wanted` in a forward, and change nothing.

    Args:
        follow: compare the streams with the table on the way, which waits for the device: once a run is enough.

    Raises:
        UnknownLayout: the streams are not what the table says.
    """
    number = block_at(sought.layer, len(of_model.blocks))

    def chunks(args: Args, stage: Stage) -> list[Chunk]:
        """Those of conditions that are wanted."""
        told = args["transformer_options"]
        size = stage.image_of(args, slice(None)).shape[0] // len(told["uuids"])
        whose = enumerate(zip(told["uuids"], told["cond_or_uncond"], strict=True))
        return [Chunk(uuid, index, at, size) for at, (uuid, index) in whose if uuid in wanted]

    def at(block: Block) -> Patch:
        stage = block.stage

        def patch(args: Args, inner: Inner) -> Args:
            meant = chunks(args, stage)
            if block.first and meant:
                reading.count(block, args)
                if follow:
                    reading.follow(block, args, meant[0].rows)
            for chunk in meant if block is of_model.blocks[number] else ():
                picture = reading.picture(stage, args, chunk.rows)
                shown(*chunk.key, largest_channels(picture.flatten(1, -2), sought.channels))
            out = inner(args)
            if follow and block.last and meant:
                reading.leave(block, out, meant[0].rows)
            return out

        return patch

    before = enumerate(of_model.blocks[:number])
    on_the_way = {n: at(block) for n, block in before if block.first or (follow and block.last)}
    return by_key({**on_the_way, number: at(of_model.blocks[number])}, of_model.blocks)
