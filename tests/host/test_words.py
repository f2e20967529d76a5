"""Where attention puts words: every family against attention computed in full, by an ordinary wrapper around it."""

import importlib
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comparison import with_context_windows
from family_models import CASES, load, normal
from models import VARIANTS, conditioning, model
from plain import relative_error
from sampling import sample, stock_guider
from test_families import of_cases

# Where each family's attention is called, and where the prompt's tokens and the picture's stand in it.
MODULES = {
    "flux": "comfy.ldm.flux.math",
    "qwen": "comfy.ldm.qwen_image.model",
    "wan": "comfy.ldm.wan.model",
    "aura": "comfy.ldm.aura.mmdit",
    "cosmos": "comfy.ldm.cosmos.blocks",
    "predict2": "comfy.ldm.cosmos.predict2",
    "ltx": "comfy.ldm.modules.attention",
    "sd3": "comfy.ldm.modules.diffusionmodules.mmdit",
}
READ = {  # case → module, first query of the picture, its tokens, first key of the prompt
    "Flux": ("flux", 5, 16, 0),
    "Flux, odd size": ("flux", 5, 20, 0),
    "Flux Kontext": ("flux", 5, 16, 0),
    "Flux.2": ("flux", 512, 16, 507),
    "Chroma": ("flux", 5, 16, 0),
    "Chroma Radiance": ("flux", 5, 16, 0),
    "Qwen-Image": ("qwen", 5, 16, 0),
    "Qwen-Image Edit": ("qwen", 5, 16, 0),
    "HunyuanVideo": ("flux", 0, 48, 48),
    "AuraFlow": ("aura", 13, 16, 8),
    "Wan text to video": ("wan", 0, 48, 0),
    "Wan image to video": ("wan", 0, 48, 0),
    "LTX-Video": ("ltx", 0, None, 0),
    "Cosmos": ("cosmos", 0, None, 0),
    "Cosmos Predict2": ("predict2", 0, None, 0),
}
PLACES = ((1,), (2, 4), (0, 3))


def words_of(pack, length, layer):
    return pack.module("methods.regions.words").Words(("one", "two"), PLACES, length, layer)


def read(pack, patcher, words, guider, noise):
    """What the pack reads of every forward: [(id, index, attention)], and what was sampled."""
    module, forwards = pack.module("methods.regions.reader"), pack.module("dit.forward")
    anatomy, shown = pack.module("dit.anatomy").anatomy_of(patcher), []

    def patches_for(batch):
        layout = pack.module("dit").token_layout(anatomy.family, anatomy.network, batch.latent, batch.conditions, {})
        wanted = {cond["uuid"] for cond in guider.conds["positive"]}
        return module.words_patches(words, anatomy, batch, layout, wanted, lambda *seen: shown.append(seen), True)

    clone = patcher.clone()
    pack.module("dit.block_hooks").install(clone, anatomy.family)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "words", forwards.patched(patches_for))
    guider.model_patcher = clone
    return shown, sample(guider, noise=noise, steps=1)


@contextmanager
def attention_of(module, block, calls):
    """Notes queries, keys and mask of every attention in a block, by a wrapper around the host's function."""
    module, inside = importlib.import_module(MODULES[module]), []
    names = [name for name in ("optimized_attention", "optimized_attention_masked") if hasattr(module, name)]
    before = {name: vars(module)[name] for name in names}

    def noting(attention):
        def run(q, k, v, heads, *rest, **more):
            if inside:
                each = [q, k]
                if not more.get("skip_reshape"):
                    each = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in each]
                mask = rest[0] if rest else more.get("mask")
                calls.append((*(x.detach().clone() for x in each), mask))
            return attention(q, k, v, heads, *rest, **more)

        return run

    handles = [
        block.register_forward_pre_hook(lambda *_: inside.append(1)),
        block.register_forward_hook(lambda *_: inside.clear()),
    ]
    for name, attention in before.items():
        setattr(module, name, noting(attention))
    try:
        yield
    finally:
        for name, attention in before.items():
            setattr(module, name, attention)
        for handle in handles:
            handle.remove()


def in_full(q, k, mask, first, tokens, first_key):
    """Mean over heads and over a word's tokens of the softmax over all keys, (rows, words, tokens)."""
    scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + (mask if mask.ndim == 4 else mask[:, None])
    attention = (scores - scores.logsumexp(dim=-1, keepdim=True)).exp().mean(dim=1)
    picture = attention[:, first : first + (tokens or q.shape[2])]
    return torch.stack([picture[:, :, [first_key + t for t in word]].mean(dim=-1) for word in PLACES], dim=1)


@of_cases(*READ)
@pytest.mark.parametrize("share", [0.0, 0.75])
def test_equals_attention_in_full(pack, name, share):
    case, patcher = CASES[name], load(name)
    number = int(share * case.depth)
    module, first, tokens, first_key = READ[name]
    if name == "HunyuanVideo" and share:
        pytest.skip("its single blocks do not tell where the prompt is")
    noise = case.noise(1 if case.one_row else 2)
    block = case.blocks(patcher.model.diffusion_model)[number]
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    words = words_of(pack, case.text, (number + 0.5) / case.depth)
    shown, sampled = read(pack, patcher, words, stock_guider(patcher, **inputs), noise)
    plain, calls = stock_guider(patcher, **inputs), []
    with attention_of(module, block, calls):
        expected_sample = sample(plain, noise=noise, steps=1)
    assert torch.equal(sampled, expected_sample), "watching changes nothing"
    across = [call for call in calls if call[1].shape[2] == case.text != call[0].shape[2]]
    ((_, _, found),) = shown
    expected = in_full(*(across or calls)[0], first, tokens, first_key)
    # The host puts the negative's rows before the positive's.
    assert relative_error(found, expected[-len(noise) :]) <= 1e-5


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("variant", VARIANTS)
def test_sd3_equals_attention_in_full(pack, variant, block):
    """SD3.5-Medium's blocks have a second attention, of the picture alone."""
    patcher, noise = model(variant), normal(5, 2, 16, 16, 16)
    words = words_of(pack, 7, (block + 0.5) / 4)
    shown, sampled = read(pack, patcher, words, stock_guider(patcher), noise)
    calls = []
    with attention_of("sd3", patcher.model.diffusion_model.joint_blocks[block], calls):
        expected_sample = sample(stock_guider(patcher), noise=noise, steps=1)
    assert torch.equal(sampled, expected_sample), "watching changes nothing"
    ((_, _, found),) = shown
    expected = in_full(*calls[0], first=7, tokens=64, first_key=0)
    assert relative_error(found, expected[-2:]) <= 1e-5


# Beside Detail Guidance, areas, and other packs' attention


def watched(pack, patcher, words, positive, negative=None, cfg=1.0, batch=1, steps=1):
    """What is shown of each step, and what was sampled."""
    shown = []
    model = pack.module("methods.regions.reader").read_each_step(patcher, words, shown.append)
    samples = sample(stock_guider(model, positive, negative, cfg=cfg), batch, steps=steps)
    return shown, samples


@pytest.mark.parametrize("name", ["Flux", "Qwen-Image", "Wan text to video", "Cosmos Predict2"])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_detail_guidance_beside_it(pack, name, block, batching):
    """Blocks before the layer are shared by the detail rows, those behind are not; neither changes what is read."""
    case, patcher = CASES[name], load(name)
    words = words_of(pack, case.text, (block + 0.5) / case.depth)
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    expected, plain = [], stock_guider(patcher, **inputs)
    plain.model_patcher = pack.module("methods.regions.reader").read_each_step(patcher, words, expected.append)
    sample(plain, noise=case.noise(2), steps=1)
    options = pack.run("DetailGuidanceOptions", batching=batching, massive_ratio=1.0)
    layer = 2.5 / case.depth
    guided = pack.run("DetailGuidance", model=patcher, layer_start=layer, layer_end=layer, options=options)
    found, guider = [], stock_guider(patcher, **inputs)
    guider.model_patcher = pack.module("methods.regions.reader").read_each_step(guided, words, found.append)
    sample(guider, noise=case.noise(2), steps=1)
    assert len(found) == len(expected) == 1 and relative_error(found[0], expected[0]) <= 1e-5


def test_areas_and_several_conditions(pack):
    """Each condition's attention in its area; where they overlap the larger."""
    patcher, words = model(), words_of(pack, 7, 0.5)
    ((prompt, options),) = conditioning(1)
    assert prompt.shape[1] == 7
    whole = [[prompt, options]]
    part = [[prompt, {**options, "area": (8, 16, 4, 0), "strength": 1.0}]]  # height, width, top, left
    ((of_whole,), _), ((of_part,), _), ((of_both,), _) = (
        watched(pack, patcher, words, positive) for positive in (whole, part, whole + part)
    )
    assert of_part.shape == of_whole.shape == (1, 3, 16, 16)
    assert not of_part[..., :4, :].any() and not of_part[..., 12:, :].any() and (of_part[..., 4:12, :] > 0).all()
    torch.testing.assert_close(of_both, torch.maximum(of_whole, of_part))


def test_another_packs_attention_stays_in_the_chain(pack):
    """It is asked once for each attention, with and without the words being read, and its answer is what counts."""
    patcher, calls = model().clone(), []

    def doubled(attention, *args, **more):
        calls.append(1)
        return 2 * attention(*args, **more)

    patcher.model_options["transformer_options"]["optimized_attention_override"] = doubled
    expected = sample(stock_guider(patcher, cfg=1.0), steps=1)
    asked = len(calls)
    _, found = watched(pack, patcher, words_of(pack, 7, 0.5), conditioning(1))
    assert torch.equal(found, expected) and len(calls) == 2 * asked


def test_areas_beside_a_negative(pack):
    """The host gives the negative a copy of an area's condition, of which nothing is read."""
    patcher, words = model(), words_of(pack, 7, 0.5)
    ((prompt, options),) = conditioning(1)
    part = [[prompt, {**options, "area": (8, 16, 4, 0), "strength": 1.0}], [prompt, options]]
    ((alone,), _), ((beside,), _) = (
        watched(pack, patcher, words, part, conditioning(2), cfg=cfg) for cfg in (1.0, 4.0)
    )
    assert relative_error(beside, alone) <= 1e-5


def test_a_mask_and_an_area_in_shares(pack):
    """As the host's own nodes set them: what they leave out has no attention."""
    patcher, words = model(), words_of(pack, 7, 0.5)
    ((prompt, options),) = conditioning(1)
    mask = torch.zeros(1, 16, 16)
    mask[:, :, 8:] = 1
    masked = [[prompt, {**options, "mask": mask, "set_area_to_bounds": False, "mask_strength": 1.0}]]
    bounded = [[prompt, {**options, "mask": mask, "set_area_to_bounds": True, "mask_strength": 1.0}]]
    shares = [[prompt, {**options, "area": ("percentage", 1.0, 0.5, 0.0, 0.5), "strength": 1.0}]]
    for positive in (masked, bounded, shares):
        (found,), _ = watched(pack, patcher, words, positive)
        assert found.shape == (1, 3, 16, 16)
        assert not found[..., :8].any() and (found[..., 8:] > 0).all()


def test_words_of_another_prompt(pack):
    with pytest.raises(ValueError, match="words: their prompt has 8 tokens, and this block is given 7 of 7"):
        watched(pack, model(), words_of(pack, 8, 0.5), conditioning(1))


def test_only_the_conditions_of_the_prompt_are_read(pack):
    patcher, words = model(), replace(words_of(pack, 7, 0.5), prompt="mine")
    ((prompt, options),) = conditioning(1)
    mine, another = [prompt, {**options, "detail_guidance_words": "mine"}], conditioning(2)[0]
    ((alone,), _), ((beside,), _) = (watched(pack, patcher, words, each) for each in ([mine], [mine, another]))
    assert relative_error(beside, alone) <= 1e-5
    with pytest.raises(
        ValueError, match=r"words: the positive is of another prompt\. Connect Detail Prompt Words' own"
    ):
        watched(pack, patcher, words, [another])


def test_context_windows_are_refused(pack):
    case, patcher = CASES["Wan text to video"], load("Wan text to video")
    windowed = with_context_windows(patcher, 2)
    guider = stock_guider(windowed, case.conditioning(1), case.conditioning(2))
    guider.model_patcher = pack.module("methods.regions.reader").read_each_step(
        windowed, words_of(pack, case.text, 0.5), print
    )
    with pytest.raises(ValueError, match="words: they cannot be read in context windows"):
        sample(guider, noise=case.noise(1), steps=1)


@pytest.mark.parametrize(
    "name, layer, message",
    [
        ("PixArt", None, "words: PixArt does not tell its attention to the prompt. Use a mask"),
        ("HunyuanVideo", 0.9, "layer: 0.9 is block 3, .* Set it to at most 0.38, or to 0"),
    ],
)
def test_models_that_do_not_tell(pack, name, layer, message):
    with pytest.raises(ValueError, match=message):
        pack.module("methods.regions.reader").read_each_step(load(name), words_of(pack, 5, layer), print)


@pytest.mark.parametrize("name, block", [("HunyuanVideo", 1), ("Flux.2", 2), ("Wan text to video", 2)])
def test_the_block_where_none_was_published(pack, name, block):
    """The one nearest 0.4 of the depth that can be read; of Flux.2 not FLUX.1's."""
    anatomy = pack.module("dit.anatomy").anatomy_of(load(name))
    assert pack.module("methods.regions.reader").grounding_block(words_of(pack, 5, None), anatomy) == block


# The nodes


@pytest.fixture(scope="module")
def reference():
    from in_process import reference_model

    package = reference_model()
    return package.load_model(), package.load_clip(), package.load_vae()


def prompt_words(pack, reference, text="brick wall", words="brick", layer=0.5):
    return pack.outputs("PromptWords", clip=reference[1], text=text, words=words, layer=layer).args


def test_sampled_it_is_the_same_picture(pack, reference):
    from nodes import common_ksampler

    words, positive = prompt_words(pack, reference)
    empty = {"samples": torch.zeros(2, 16, 16, 16)}
    given = {"model": reference[0], "vae": reference[2], "words": words, "positive": positive, "negative": positive}
    masks, overlay, latent = pack.outputs("PromptWordMask", **given, latent_image=empty, steps=3, seed=4).args
    (expected,) = common_ksampler(reference[0], 4, 3, 4.0, "euler", "simple", positive, positive, empty)
    assert torch.equal(latent["samples"], expected["samples"])
    assert masks.shape == (2, 128, 128) and overlay.shape == (2, 128, 128, 3) and 0 <= masks.min() < masks.max() <= 1


def test_read_from_pictures_of_any_origin(pack, reference):
    words, positive = prompt_words(pack, reference, "wood planks", "wood, planks")
    image = torch.rand(3, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    given = {"model": reference[0], "vae": reference[2], "words": words, "positive": positive, "image": image}
    masks, overlay, latent = pack.outputs("PromptWordMask", **given, masks="divided").args
    assert masks.shape == (6, 64, 96) and overlay.shape == image.shape
    assert set(masks.unique().tolist()) <= {0.0, 1.0} and (masks.view(3, 2, 64, 96).sum(dim=1) <= 1).all()
    assert torch.equal(latent["samples"], reference[2].encode(image))


def test_pictures_that_do_not_fill_their_tokens(pack, reference):
    """The mask is as large as the picture; what is beyond whole tokens has the last ones'."""
    words, positive = prompt_words(pack, reference)
    image = torch.rand(1, 75, 100, 4, generator=torch.Generator().manual_seed(1))
    given = {"model": reference[0], "vae": reference[2], "words": words, "positive": positive}
    masks, overlay, _ = pack.outputs("PromptWordMask", **given, image=image).args
    cut, _, _ = pack.outputs("PromptWordMask", **given, image=image[:, :64, :96]).args
    assert masks.shape == (1, 75, 100) and overlay.shape == (1, 75, 100, 3)
    torch.testing.assert_close(masks[:, :64, :96], cut)
    assert torch.equal(masks[:, 64:, :96], masks[:, 63:64, :96].expand(1, 11, 96))


def test_a_word_that_is_the_whole_prompt(pack, reference):
    words, positive = prompt_words(pack, reference, text="rock", words="rock")
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    given = {"model": reference[0], "vae": reference[2], "words": words, "positive": positive, "image": image}
    for kind in ("soft", "divided"):
        masks, *_ = pack.outputs("PromptWordMask", **given, masks=kind).args
        assert 0.02 < masks.mean() < 0.98, "not everything, and not nothing"


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "image: connect either an image, which is read, or latent_image"),
        ({"latent_image": {"samples": torch.zeros(1, 16, 16, 16)}}, "negative: not connected, and cfg is not 1"),
        ({"latent_image": {"samples": torch.zeros(0, 16, 16, 16)}}, "latent_image: it is empty"),
        ({"image": torch.zeros(1, 64, 64, 3), "noise_level": 0.0}, "noise_level: 0.0 is outside"),
        ({"image": torch.zeros(1, 64, 64, 3), "softness": 2.0}, "softness: 2.0 is outside"),
        ({"image": torch.zeros(1, 8, 8, 3)}, "image: it is empty, or smaller than one of the model's tokens"),
        ({"image": torch.zeros(1, 64, 64, 1)}, r"image: its shape is \(1, 64, 64, 1\)"),
        ({"image": torch.zeros(1, 64, 64, 3), "vae": None}, "vae: there is none"),
        ({"image": torch.zeros(1, 64, 64, 3), "positive": []}, "positive: it has 0 conditions"),
    ],
)
def test_bad_input(pack, reference, inputs, message):
    words, positive = prompt_words(pack, reference)
    given = {"model": reference[0], "vae": reference[2], "words": words, "positive": positive}
    with pytest.raises(ValueError, match=message):
        pack.outputs("PromptWordMask", **{**given, **inputs})


def test_an_engine_that_keeps_its_attention_to_itself(pack, reference):
    words, positive = prompt_words(pack, reference)
    silent = reference[0].clone()
    silent.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(
            args["input"], args["timestep"], **{**args["c"], "transformer_options": {}}
        )
    )
    given = {"vae": reference[2], "words": words, "positive": positive, "image": torch.zeros(1, 64, 64, 3)}
    with pytest.raises(ValueError, match="words: nothing was read"):
        pack.outputs("PromptWordMask", model=silent, **given)
    pack.outputs("PromptWordMask", model=reference[0], **given)


# Words among tokens


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "words: there are none"),
        ("grass", "words: 'grass' is not in the prompt. Its words are: brick, wall"),
        ("brick, bric", "words: 'bric' is not in the prompt"),
    ],
)
def test_words_that_are_not_in_the_prompt(pack, reference, words, message):
    with pytest.raises(ValueError, match=message):
        prompt_words(pack, reference, words=words)


class Tokenized:
    """A CLIP as far as words need it: the host's own tokenizers, and a conditioning as long as it would have."""

    def __init__(self, tokenizer, length):
        self.tokenizer, self.length = tokenizer, length

    def tokenize(self, text):
        return self.tokenizer.tokenize_with_weights(text)

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.zeros(1, self.length({key: sum(map(len, each)) for key, each in tokens.items()}), 4), {}]]


TEMPLATE = 34  # tokens before a prompt of Qwen-Image, which the host cuts off
TOKENIZERS = {  # module, tokenizer, length of the conditioning, and which encoder's tokens stand where in it
    "SD3": ("sd3_clip", "SD3Tokenizer", lambda n: n["l"] + n["t5xxl"], {"clip_l": 0, "t5xxl": 77}),
    "Flux": ("flux", "FluxTokenizer", lambda n: n["t5xxl"], {"t5xxl": 0}),
    "Qwen-Image": ("qwen_image", "QwenImageTokenizer", lambda n: n["qwen25_7b"] - TEMPLATE, {"qwen25_7b": -TEMPLATE}),
}
PROMPT = "A photo of a (brown bear:1.2), standing on grass; a Bear cub looks at the bears' salmon"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_places_of_words_among_tokens(pack, name):
    """They are spelled out again by the tokenizers' own vocabularies: also under a weight, at the end, capitalised."""
    module, kind, length, starts = TOKENIZERS[name]
    tokenizer = getattr(importlib.import_module(f"comfy.text_encoders.{module}"), kind)()
    found, conditioning_ = pack.module("methods.regions.prompt_words").words_of(
        Tokenized(tokenizer, length), PROMPT, ["bear", "brown bear", "salmon"], None
    )
    assert found.length == conditioning_[0][0].shape[1]
    spelled = {word: [] for word in (*found.names, "others")}
    for encoder, start in starts.items():
        one = getattr(tokenizer, encoder)
        tokens = [
            token
            for part in tokenizer.tokenize_with_weights(PROMPT)[encoder.removeprefix("clip_")]
            for token, *_ in part
        ]
        for word, places in zip(spelled, found.places, strict=True):
            inside = [place - start for place in places if 0 <= place - start < len(tokens)]
            text = "".join(one.inv_vocab[tokens[place]] for place in inside if place < 77 or encoder != "clip_l")
            spelled[word].append(text.replace("</w>", " ").replace("▁", " ").replace("Ġ", " ").lower().split())
    for at in range(len(starts)):
        assert spelled["bear"][at] == ["bear", "bear"], "not the bears"
        assert spelled["brown bear"][at] in (["brown", "bear"], ["brownbear"]) and spelled["salmon"][at] == ["salmon"]
        assert "grass" in " ".join(spelled["others"][at]) and "salmon" not in spelled["others"][at]


def test_places_beside_an_embedding(pack, tmp_path):
    """Each of its vectors is a token, and a word too."""
    from comfy.text_encoders.sd3_clip import SD3Tokenizer
    from safetensors.torch import save_file

    save_file({"clip_l": torch.randn(3, 768), "clip_g": torch.randn(3, 1280)}, tmp_path / "fur.safetensors")
    clip = Tokenized(SD3Tokenizer(embedding_directory=str(tmp_path)), lambda n: n["l"] + n["t5xxl"])
    find = pack.module("methods.regions.prompt_words").words_of
    found, _ = find(clip, "a bear with embedding:fur on grass", ["bear", "grass"], None)
    assert found.places[0][0] == 2 and found.places[1][0] == 1 + 3 + 3 + 1, "start, a bear with, three vectors, on"


@pytest.mark.parametrize("name", ["SD3", "Flux"])
@pytest.mark.parametrize("prompt", ["photo,bear,grass", 'a "bear" on grass', "a grizzly-bear on grass", "bear"])
def test_words_without_spaces_around_them(pack, name, prompt):
    module, kind, length, _ = TOKENIZERS[name]
    tokenizer = getattr(importlib.import_module(f"comfy.text_encoders.{module}"), kind)()
    found, _ = pack.module("methods.regions.prompt_words").words_of(
        Tokenized(tokenizer, length), prompt, ["bear"], None
    )
    assert found.places[0]
    if name == "SD3":  # in both encoders
        assert min(found.places[0]) < 77 <= max(found.places[0])


def test_chinese(pack):
    module, kind, length, _ = TOKENIZERS["Qwen-Image"]
    tokenizer = getattr(importlib.import_module(f"comfy.text_encoders.{module}"), kind)()
    prompts = pack.module("methods.regions.prompt_words")
    assert prompts.parse_words("棕熊，草地、bear, grass") == ["棕熊", "草地", "bear", "grass"]
    text = "一只棕熊站在草地上"
    found, _ = prompts.words_of(Tokenized(tokenizer, length), text, ["棕熊", "草地"], None)
    tokens = [token for token, *_ in tokenizer.tokenize_with_weights(text)["qwen25_7b"][0]]
    bear, grass, _ = found.places
    spelled = [
        tokenizer.qwen25_7b.tokenizer.decode([tokens[place + TEMPLATE] for place in each]) for each in (bear, grass)
    ]
    assert "棕熊" in spelled[0] and "草" in spelled[1] and not {*bear} & {*grass}, "tokens may reach beyond a word"


def test_sd3_without_t5(pack):
    """Its checkpoint has CLIP's encoders alone; the tokenizer still makes T5's tokens."""
    from comfy.text_encoders.sd3_clip import SD3Tokenizer

    clip = Tokenized(SD3Tokenizer(), lambda n: n["l"])
    text = "photorealistic hyperdetailed grizzly, a bear on grass"
    found, _ = pack.module("methods.regions.prompt_words").words_of(clip, text, ["bear"], None)
    tokens = [token for token, *_ in clip.tokenize(text)["l"][0]]
    assert [clip.tokenizer.clip_l.inv_vocab[tokens[place]] for place in found.places[0]] == ["bear</w>"]


def test_what_is_in_quotation_marks(pack):
    """HunyuanImage reads it by an encoder of its own, in which the words are not looked for."""
    from comfy.text_encoders.hunyuan_image import HunyuanImageTokenizer

    clip = Tokenized(HunyuanImageTokenizer(), lambda n: n["qwen25_7b"] - TEMPLATE)
    found, _ = pack.module("methods.regions.prompt_words").words_of(clip, 'a bear with a sign "HELLO"', ["bear"], None)
    assert found.places[0]
