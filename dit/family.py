"""What a row of the table of model families is made of: stages of blocks, and what is known of their arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor

Key = tuple[str, int]  # of a block in the host's patches_replace["dit"]: kind and index

# What the image stream of a stage holds, from its first token to its last: nothing but the image tokens; the image
# tokens and those ahead of and behind them (TokenCounts); and these with the text's joined to them.
Order = Literal["image only", "image", "image text", "text image"]

# Where the image tokens' queries meet the prompt: among the keys of one attention, before or behind the image's; or
# in a cross-attention of its own.
PromptKeys = Literal["before", "behind", "across"]


@dataclass(frozen=True)
class Stage:
    """Successive blocks of one kind. Argument names are the keys of the host's block-replace hook ("img"); of hooked
    stages those of the blocks' own `forward`.

    Attributes:
        kind: first half of the blocks' keys in the host's patches_replace.
        blocks: attribute path of the network's list of these blocks.
        hidden_states: names of the block arguments that a block updates and returns; the first is the image stream,
            of shape (rows, tokens, channels), or (…, channels) with rows at `row_dim` where it holds nothing else. Of
            a tuple it is the first tensor.
        row_arguments: names of the block arguments that have one row per picture in the batch.
        order: the image stream's contents in their order.
        row_dim: argument → the dimension of its rows, where it is not the first; None where there are no rows.
        packed: arguments with all tokens of all rows in that dimension.
        grouped: arguments that may hold all rows several times over, one group after another.
        hooked: the host gives these blocks no block-replace hook, so block_hooks.py does.
        modulation: (block, its arguments) → AdaLN's numbers for the image stream, (rows, branches, 3, channels):
            shift, scale and residual gate α, the attention's branch first; None where a family has none in its
            blocks, or where they differ from token to token.
        prompt_keys: block → where its attention has the prompt; None where the host does not say.
        positions: the argument with the tokens' rotary positions, and the dimension of the tokens in it; None where
            positions were added to the tokens before the first block.
        sublayers: names of a block's modules whose outputs for the image stream the residual gates α multiply, the
            attention's first; one where attention and MLP end in one layer. Empty where a block has none, or where
            they were not read.
    """

    kind: str
    blocks: str
    hidden_states: tuple[str, ...]
    row_arguments: tuple[str, ...]
    order: Order = "image only"
    row_dim: Mapping[str, int | None] = field(default_factory=dict)
    packed: tuple[str, ...] = ()
    grouped: tuple[str, ...] = ()
    hooked: bool = False
    modulation: Callable[[Any, Mapping[str, Any]], Tensor | None] | None = None
    prompt_keys: Callable[[Any], PromptKeys] | None = None
    positions: tuple[str, int] | None = None
    sublayers: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """Name of the image stream's argument."""
        return self.hidden_states[0]

    @property
    def joined(self) -> bool:
        """Whether the text's tokens are in the image stream."""
        return self.order in ("image text", "text image")

    def list_in(self, network: Any) -> Any:
        """The network's list of these blocks."""
        return attrgetter(self.blocks)(network)

    def block_in(self, network: Any, index: int) -> Any:
        """The network's block of this index; a ModuleDict's in its order."""
        blocks = self.list_in(network)
        return [*blocks.values()][index] if hasattr(blocks, "values") else blocks[index]

    def row_dim_of(self, name: str) -> int | None:
        """The dimension of an argument's rows."""
        return self.row_dim.get(name, 0)

    def image_stream(self, args: Mapping[str, Any], rows: slice) -> Tensor:
        """A view of some rows of the image stream, rows first."""
        stream = args[self.image]
        if isinstance(stream, tuple):
            stream = stream[0]
        dim = self.row_dim_of(self.image)
        return stream.unsqueeze(0) if dim is None else stream.movedim(dim, 0)[rows]


@dataclass(frozen=True)
class Block:
    """One block of a model.

    Attributes:
        key: in the host's patches_replace["dit"].
        stage: the stage it belongs to.
        first, last: whether it is its stage's first or last.
    """

    key: Key
    stage: Stage
    first: bool
    last: bool

    @property
    def name(self) -> str:
        """The block's name for people: "double 12", "single 3"."""
        kind, index = self.key
        return f"{kind.removesuffix('_block').replace('_', ' ')} {index}"


@dataclass(frozen=True)
class Family:
    """A row of the table: everything that is known of one model family.

    Attributes:
        id: the name by which files know the family; never changed.
        name: the family's name in messages.
        model_classes: full names of the host's classes, below `comfy.ldm`. Subclasses are not meant: where those have
            their image tokens is not known.
        stages: in execution order.
        aliases: other names by which files of earlier versions know the family.
        when: network → whether this row is its row, where several rows have one class.
        patch_size: network → the sides of a token in the latent's last dimensions, the network's own `patch_size`
            unless the row says otherwise; None where image tokens are not counted.
        ahead, behind: names of the model conditions that become tokens before and after the image tokens; then no
            stage but the first has the order "image only".
        uncounted_tail: further tokens may follow, of which no condition tells.
        inseparable_conditions: model conditions whose tokens cannot be told from the image tokens.
        padded_to: the network's attribute with the number of tokens to whose multiples images are padded.
        long_skips: later blocks also receive what the earlier ones returned.
        batchable: whether perturbed rows can share blocks with the rows they are copies of.
        unbatchable_conditions: model conditions with which they cannot: the host hands them to the blocks past any
            block patch, or takes them for one row only.
        single_row: (network, model conditions) → whether the host itself takes no second row with them.
        word_grounding_block: number of the block whose attention to a word shows best where it is, as published; None
            where nothing was.
        prompt_comes_last: network → whether other tokens stand before the prompt's among the text's.
        prompt_cache: the network keeps the prompt's keys and values from step to step, except under block patches.
        has_transformer_options: the host gives the blocks transformer_options, so that they know whose rows they have.
    """

    id: str
    name: str
    model_classes: tuple[str, ...]
    stages: tuple[Stage, ...]
    aliases: tuple[str, ...] = ()
    when: Callable[[Any], bool] = lambda network: True
    patch_size: Callable[[Any], Any] | None = attrgetter("patch_size")
    ahead: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    uncounted_tail: bool = False
    inseparable_conditions: tuple[str, ...] = ()
    padded_to: str = ""
    long_skips: bool = False
    batchable: bool = True
    unbatchable_conditions: tuple[str, ...] = ()
    single_row: Callable[[Any, Mapping[str, Any]], bool] = lambda network, conditions: False
    word_grounding_block: int | None = None
    prompt_comes_last: Callable[[Any], bool] = lambda network: False
    prompt_cache: bool = False
    has_transformer_options: bool = True

    def shares_rows(self, network: Any, conditions: Mapping[str, Any]) -> bool:
        """Whether a forward with these model conditions can have rows that share blocks."""
        unbatchable = any(conditions.get(name) is not None for name in self.unbatchable_conditions)
        return self.batchable and not unbatchable and not self.single_row(network, conditions)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which files may know the family, the one for people first."""
        return (self.name, self.id, *self.aliases)
