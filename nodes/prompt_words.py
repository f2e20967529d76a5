from comfy.sd import CLIP
from comfy_api.latest import io

from ..methods.common.numbers import require
from ..methods.regions.prompt_words import parse_words, words_of
from .inputs import CATEGORY, WordsType, aliases, fraction, require_given


class PromptWords(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PromptWords",
            display_name="Detail Prompt Words",
            category=f"{CATEGORY}/words",
            description="A prompt, and words of it whose place in the picture is wanted. In place of CLIP Text Encode.",
            inputs=[
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip='Words of the prompt, such as "bear, grass". Several words of one thing belong together: '
                    '"brown bear".',
                ),
                fraction(
                    "layer",
                    0.0,
                    "The block that is read, as a fraction of the model's depth. 0 takes the one that was published "
                    "for the model, or one at 0.4. Raising it reads a later block.",
                ),
            ],
            outputs=[
                WordsType.Output(display_name="words", tooltip="For Detail Guidance Options or Detail Word Mask."),
                io.Conditioning.Output(display_name="conditioning", tooltip="The prompt, for positive."),
            ],
            **aliases("mask", "attention", "regional", "CLIP Text Encode"),
        )

    @classmethod
    def execute(cls, clip: CLIP, text: str, words: str, layer: float) -> io.NodeOutput:
        require("layer", layer, 0.0, 1.0)
        require_given(clip=clip)
        return io.NodeOutput(*words_of(clip, text, parse_words(words), layer or None))
