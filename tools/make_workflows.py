"""Writes workflows/*.json, the graphs that the page offers as templates, from the short descriptions below.

    .host/venv/bin/python tools/make_workflows.py

Which inputs a node has, and in which order, comes from the host itself, so a graph cannot name what is not there.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from comfy_server import Server
from graph import Definitions, Graph, Node, Output

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
HUGGING_FACE = "https://huggingface.co"
COMFY = f"{HUGGING_FACE}/Comfy-Org"
SD35_MEDIUM = f"{COMFY}/stable-diffusion-3.5-fp8/resolve/main/sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
CLIP_L, T5, T5_FP8 = (
    f"{HUGGING_FACE}/comfyanonymous/flux_text_encoders/resolve/main/{name}.safetensors"
    for name in ("clip_l", "t5xxl_fp16", "t5xxl_fp8_e4m3fn_scaled")
)
QWEN_3 = f"{COMFY}/z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors"
FLUX_VAE = f"{COMFY}/z_image_turbo/resolve/main/split_files/vae/ae.safetensors"

PROMPT = "a close-up photograph of an old oak's bark with moss and lichen, morning light, sharp focus"
BEAR = "a photograph of a brown bear in a meadow, facing the camera"
FILM = "a brown bear walks through a meadow towards the camera, morning light"
# What a picture changes by is then alike on every model; docs/DEFAULTS.md says why 0.1.
STRENGTH: dict[str, Any] = {"dg_scale": 0.1, "scale_is": "strength"}
NOT_MEASURED = (
    "Nobody has settled the best `dg_scale` and layer for this model. Here `dg_scale` counts in strength: the added "
    "detail as a share of the model's own step. Start at 0.1, look at the picture, and raise it until textures turn "
    "inconsistent; then go back a little. Or measure it on your model: template *Find your setting*."
)
SAMPLING: dict[str, Any] = {"seed": 0, "steps": 28, "cfg": 4.5, "sampler_name": "euler", "scheduler": "sgm_uniform"}
Loaded = tuple[Output, Output, Output]  # model, text encoder, autoencoder


def checkpoint(graph: Graph, url: str = SD35_MEDIUM) -> Loaded:
    file = Path(url).name
    loader = graph.node("CheckpointLoaderSimple", 0, {f"checkpoints/{file}": url}, ckpt_name=file)
    graph.group("Model", loader)
    return loader.out("MODEL"), loader.out("CLIP"), loader.out("VAE")


def files(
    graph: Graph,
    model: str,
    encoders: tuple[str, ...],
    type: str,
    vae: str,
    shift: tuple[str, float] | None = None,
    tokens: int | None = None,
) -> Loaded:
    """A model in files of their own, by their addresses. `shift`: a node that shifts noise levels, and how far;
    `tokens`: to how many prompts are filled up."""
    of = {"diffusion_models": [model], "text_encoders": encoders, "vae": [vae]}
    where = {folder: {f"{folder}/{Path(url).name}": url for url in urls} for folder, urls in of.items()}
    network = graph.node("UNETLoader", 0, where["diffusion_models"], unet_name=Path(model).name)
    names = [Path(url).name for url in encoders]
    kind, inputs = (
        ("CLIPLoader", ["clip_name"]) if len(names) == 1 else ("DualCLIPLoader", ["clip_name1", "clip_name2"])
    )
    text = graph.node(kind, 0, where["text_encoders"], **dict(zip(inputs, names, strict=True)), type=type)
    pixels = graph.node("VAELoader", 0, where["vae"], vae_name=Path(vae).name)
    loaded = [network, text, pixels]
    if shift:
        network = graph.node(shift[0], 0, model=network.out("MODEL"), shift=shift[1])
        loaded.append(network)
    if tokens is not None:
        text = graph.node("T5TokenizerOptions", 0, clip=text.out("CLIP"), min_padding=tokens, min_length=tokens)
        loaded.append(text)
    graph.group("Model", *loaded)
    return network.out("MODEL"), text.out("CLIP"), pixels.out("VAE")


def prompts(graph: Graph, clip: Output, positive: str, negative: str | None) -> list[Output]:
    texts = {"Prompt": positive} | ({} if negative is None else {"Negative prompt": negative})
    nodes = [graph.node("CLIPTextEncode", 1, title=title, clip=clip, text=text) for title, text in texts.items()]
    graph.group("Prompt", *nodes)
    return [node.out("CONDITIONING") for node in nodes]


@dataclass(frozen=True)
class Base:
    """What every workflow begins with: a model, and a prompt with its negative where there are any."""

    graph: Graph
    model: Output
    clip: Output
    vae: Output
    positive: Any
    negative: Any


@dataclass(frozen=True)
class Workflow:
    """A workflow by its difference from the one of SD3.5 Medium.

    Attributes:
        title: its file's name, by which the page offers it, in the titles' order.
        note: the text beside the model.
        add: puts the rest onto the base.
        load: puts the model's loaders there.
        prompt: None where `add` has a node for it.
        negative: None where there is none.
    """

    title: str
    note: str
    add: Callable[[Base], None]
    load: Callable[[Graph], Loaded] = checkpoint
    prompt: str | None = PROMPT
    negative: str | None = ""

    def build(self, definitions: Definitions) -> Graph:
        graph = Graph(definitions)
        model, clip, vae = self.load(graph)
        graph.note(0, self.note)
        given = [] if self.prompt is None else prompts(graph, clip, self.prompt, self.negative)
        positive, negative = [*given, None, None][:2]
        self.add(Base(graph, model, clip, vae, positive, negative))
        return graph


def size(graph: Graph, title: str = "Size", pixels: int = 1024, **others: Any) -> Output:
    latent = graph.node("EmptySD3LatentImage", 1, width=pixels, height=pixels, **others)
    graph.group(title, latent)
    return latent.out("LATENT")


def shared(graph: Graph, column: int = 1) -> dict[str, Any]:
    """SAMPLING, its numbers from nodes that feed every sampler: pictures are compared only if they share them."""
    kinds = {"seed": "PrimitiveInt", "steps": "PrimitiveInt", "cfg": "PrimitiveFloat"}
    numbers = {name: graph.node(kind, column, title=TITLES[name], value=SAMPLING[name]) for name, kind in kinds.items()}
    graph.group("One of each for both", *numbers.values())
    return SAMPLING | {name: node.out(node.outputs[0]) for name, node in numbers.items()}


TITLES = {"seed": "Seed", "steps": "Steps", "cfg": "CFG"}


def compared(graph: Graph, column: int, images: Output, reference: Output, labels: tuple[str, str]) -> None:
    """Two pictures in one place. `labels`: of the reference, left, and of the images."""
    beside = graph.node("DetailCompare", column, images=images, reference=reference)
    names = dict(zip(("reference", "images"), labels, strict=True))
    for socket in beside.saved["inputs"]:
        socket["label"] = names[socket["name"]]
    graph.group(f"{labels[0].capitalize()} and {labels[1]}: move the pointer over it", beside)


def picture(graph: Graph, column: int, samples: Output, vae: Output, prefix: str) -> list[Node]:
    decoded = graph.node("VAEDecode", column, samples=samples, vae=vae)
    return [decoded, graph.node("SaveImage", column, images=decoded.out("IMAGE"), filename_prefix=prefix)]


def guider(base: Base, latent: Output, cfg: float, sigmas: tuple[str, dict[str, Any]]) -> None:
    """The guider with SamplerCustomAdvanced. `sigmas`: the node that gives them, and its inputs."""
    graph, scheduler = base.graph, sigmas[0]
    conditions = {"positive": base.positive} | ({"negative": base.negative} if base.negative else {})
    detail = graph.node("DetailGuider", 2, model=base.model, **conditions, cfg=cfg, **STRENGTH)
    graph.group("Detail Guidance", detail)
    of_model = {"model": base.model} if scheduler == "BasicScheduler" else {}
    noise = graph.node("RandomNoise", 3, noise_seed=0)
    chosen = graph.node("KSamplerSelect", 3, sampler_name="euler")
    levels = graph.node(scheduler, 3, **of_model, **sigmas[1])
    parts = {"noise": noise.out("NOISE"), "sampler": chosen.out("SAMPLER"), "sigmas": levels.out("SIGMAS")}
    sampler = graph.node("SamplerCustomAdvanced", 3, guider=detail.out("GUIDER"), latent_image=latent, **parts)
    graph.group("Sampling", noise, chosen, levels, sampler)
    graph.group("Picture", *picture(graph, 4, sampler.out("output"), base.vae, "detail_guidance"))


def flux_dev(base: Base) -> None:
    embedded = base.graph.node("FluxGuidance", 1, conditioning=base.positive, guidance=3.5)
    base.graph.group("The model's own guidance", embedded)
    base = replace(base, positive=embedded.out("CONDITIONING"))
    guider(base, size(base.graph), 1.0, ("BasicScheduler", {"scheduler": "simple", "steps": 20}))


def chroma(base: Base) -> None:
    guider(base, size(base.graph), 3.5, ("BasicScheduler", {"scheduler": "beta", "steps": 26}))


def flux2_klein(base: Base) -> None:
    latent = base.graph.node("EmptyFlux2LatentImage", 1, width=1024, height=1024)
    base.graph.group("Size", latent)
    guider(base, latent.out("LATENT"), 5.0, ("Flux2Scheduler", {"steps": 20, "width": 1024, "height": 1024}))


def ksampler(base: Base, sampling: dict[str, Any] = SAMPLING, pixels: int = 1024) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    inputs = {"positive": positive, "negative": negative, "latent_image": size(graph, pixels=pixels)}
    detail = graph.node("DetailGuidance", 2, model=model, **STRENGTH)
    graph.group("Detail Guidance", detail)
    sampler = graph.node("KSampler", 3, model=detail.out("MODEL"), **inputs, **sampling)
    graph.group("Picture", sampler, *picture(graph, 3, sampler.out("LATENT"), vae, "detail_guidance"))


def wan(base: Base) -> None:
    graph, vae = base.graph, base.vae
    latent = graph.node("Wan22ImageToVideoLatent", 1, vae=vae, width=1280, height=704, length=121)
    graph.group("Size and number of frames", latent)
    inputs = {"positive": base.positive, "negative": base.negative, "latent_image": latent.out("LATENT")}
    detail = graph.node("DetailGuidance", 2, model=base.model, **STRENGTH)
    graph.group("Detail Guidance", detail)
    sampling = SAMPLING | {"steps": 20, "cfg": 5.0, "sampler_name": "uni_pc", "scheduler": "simple"}
    sampler = graph.node("KSampler", 3, model=detail.out("MODEL"), **inputs, **sampling)
    frames = graph.node("VAEDecode", 3, samples=sampler.out("LATENT"), vae=vae)
    video = graph.node("CreateVideo", 3, images=frames.out("IMAGE"), fps=24.0)
    saved = graph.node("SaveVideo", 4, video=video.out("VIDEO"), filename_prefix="video/detail_guidance")
    graph.group("Sampling", sampler, frames, video)
    graph.group("Video", saved)


def probe(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    inputs = {"positive": positive, "negative": negative, "latent_image": size(graph)}
    probe = graph.node("MassiveActivationProbe", 2, model=model, **inputs)
    figures = graph.node("PreviewImage", 2, images=probe.out("figures"))
    saved = graph.node("SaveMassiveActivationProfile", 2, profile=probe.out("profile"), filename_prefix="sd3.5_medium")
    report = graph.node("PreviewAny", 2, source=probe.out("report"))
    graph.group("What is massive?", probe, figures, saved, report)
    where = graph.node("MassiveActivationMap", 5, model=model, **inputs, steps=4, profile=probe.out("profile"))
    graph.group("Where?", where, graph.node("PreviewImage", 5, images=where.out("maps")))
    options = graph.node("DetailGuidanceOptions", 3, profile=probe.out("profile"))
    detail = graph.node("DetailGuidance", 3, model=model, options=options.out("DG_OPTIONS"), **STRENGTH)
    graph.group("Detail Guidance with it", options, detail)
    sampler = graph.node("KSampler", 4, model=detail.out("MODEL"), **inputs, **SAMPLING)
    graph.group("Picture", sampler, *picture(graph, 4, sampler.out("LATENT"), vae, "detail_guidance"))


def calibrate(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    batch = size(graph, title="Size and number of pictures", batch_size=2)
    inputs = {"positive": positive, "negative": negative}
    sampling = shared(graph)
    options = graph.node("DetailGuidanceOptions", 2, scale_is="strength")
    tried = {"scales": "0.05, 0.1, 0.2", "options": options.out("DG_OPTIONS")}
    found = graph.node(
        "DetailGuidanceCalibrate", 2, model=model, vae=vae, latent_image=batch, **inputs, **sampling, **tried
    )
    sheet = graph.node("PreviewImage", 3, images=found.out("sheet"))
    plot = graph.node("PreviewImage", 3, images=found.out("plot"))
    report = graph.node("PreviewAny", 2, source=found.out("report"))
    graph.group("Which layer, which strength?", options, found, sheet, plot, report)
    layer = found.out("layer")
    detail = graph.node(
        "DetailGuidance",
        4,
        model=model,
        dg_scale=found.out("dg_scale"),
        scale_is="strength",
        layer_start=layer,
        layer_end=layer,
        start_percent=found.out("start_percent"),
    )
    latent = graph.node("EmptySD3LatentImage", 4, width=1024, height=1024)
    sampler = graph.node(
        "KSampler", 4, model=detail.out("MODEL"), latent_image=latent.out("LATENT"), **inputs, **sampling
    )
    graph.group(
        "A picture with it", detail, latent, sampler, *picture(graph, 4, sampler.out("LATENT"), vae, "calibrated")
    )


def detailer(base: Base) -> None:
    """What detailer nodes do, by the host's own: a part is enlarged, sampled again, and put back."""
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    inputs = {"positive": positive, "negative": negative}
    first = graph.node("KSampler", 2, model=model, latent_image=size(graph), **inputs, **SAMPLING)
    whole = graph.node("VAEDecode", 2, samples=first.out("LATENT"), vae=vae)
    graph.group("The picture", first, whole)
    place = {"width": 512, "height": 512, "x": 256, "y": 256}
    part = graph.node("ImageCrop", 3, image=whole.out("IMAGE"), **place)
    scaling = {"width": 1024, "height": 1024, "upscale_method": "lanczos", "crop": "disabled"}
    enlarged = graph.node("ImageScale", 3, title="Enlarge", image=part.out("IMAGE"), **scaling)
    encoded = graph.node("VAEEncode", 3, pixels=enlarged.out("IMAGE"), vae=vae)
    graph.group("A part of it, enlarged", part, enlarged, encoded)
    detail = graph.node("DetailGuidance", 4, model=model, **STRENGTH)
    again = graph.node(
        "KSampler",
        4,
        model=detail.out("MODEL"),
        latent_image=encoded.out("LATENT"),
        **inputs,
        **SAMPLING | {"denoise": 0.4},
    )
    drawn = graph.node("VAEDecode", 4, samples=again.out("LATENT"), vae=vae)
    graph.group("Sampled again with Detail Guidance", detail, again, drawn)
    reduced = graph.node(
        "ImageScale", 5, title="Reduce", image=drawn.out("IMAGE"), **scaling | {"width": 512, "height": 512}
    )
    back = graph.node(
        "ImageCompositeMasked", 5, destination=whole.out("IMAGE"), source=reduced.out("IMAGE"), x=256, y=256
    )
    saved = graph.node("SaveImage", 5, images=back.out("IMAGE"), filename_prefix="detailed")
    graph.group("Put back", reduced, back, saved)
    compared(graph, 6, back.out("IMAGE"), whole.out("IMAGE"), ("before", "after"))


@dataclass(frozen=True)
class Pair:
    """Two pictures that differ in Detail Guidance alone: nodes that decode and save them, and what was shared."""

    without: list[Node]
    guided: list[Node]
    detail: Node
    seed: Node


def without_and_with(base: Base) -> Pair:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    numbers = shared(graph)
    inputs = {"positive": positive, "negative": negative, "latent_image": size(graph), **numbers}
    plain = graph.node("KSampler", 2, model=model, **inputs)
    without = picture(graph, 2, plain.out("LATENT"), vae, "without")
    graph.group("Without", plain, *without)
    detail = graph.node("DetailGuidance", 3, model=model, **STRENGTH)
    with_it = graph.node("KSampler", 3, model=detail.out("MODEL"), **inputs)
    told = graph.node("DetailGuidanceReport", 3, latent=with_it.out("LATENT"))
    guided = picture(graph, 3, told.out("LATENT"), vae, "with")
    report = graph.node("PreviewAny", 3, source=told.out("report"))
    graph.group("With Detail Guidance", detail, with_it, told, *guided, report)
    return Pair(without, guided, detail, numbers["seed"][0])


def comparison(base: Base) -> None:
    graph, pair = base.graph, without_and_with(base)
    images, reference = pair.guided[0].out("IMAGE"), pair.without[0].out("IMAGE")
    compared(graph, 4, images, reference, ("without", "with"))
    metrics = graph.node("DetailMetrics", 4, images=images, reference=reference)
    spectrum = graph.node("PreviewImage", 4, images=metrics.out("spectrum"))
    graph.group("What changed", metrics, spectrum, graph.node("PreviewAny", 4, source=metrics.out("table")))


def app(base: Base) -> None:
    pair = without_and_with(base)
    prompt, _ = base.positive
    base.graph.app(
        inputs=[(prompt, "text", "Prompt"), (pair.seed, "value", "Seed"), (pair.detail, "dg_scale", "Detail")],
        outputs=[pair.without[1], pair.guided[1]],
    )


def rectangle(graph: Graph, column: int, width: int, height: int, place: tuple[int, int, int, int]) -> list[Node]:
    """A mask of this size: `place` is left, top, width and height of what is in it. The last node gives it."""
    left, top, across, down = place
    nothing = graph.node("SolidMask", column, title="Nothing", value=0.0, width=width, height=height)
    part = graph.node("SolidMask", column, title="The part's size", value=1.0, width=across, height=down)
    placed = {"destination": nothing.out("MASK"), "source": part.out("MASK"), "x": left, "y": top}
    return [nothing, part, graph.node("MaskComposite", column, title="The part's place", **placed, operation="add")]


def transfer_mask(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    inputs = {"positive": positive, "negative": negative, "latent_image": size(graph)}
    made = []
    for column, title, seed in ((2, "A picture and a part of it", 0), (3, "Another picture", 1)):
        sampler = graph.node("KSampler", column, model=model, **inputs, **SAMPLING | {"seed": seed})
        drawn = graph.node("VAEDecode", column, samples=sampler.out("LATENT"), vae=vae)
        image = drawn.out("IMAGE")
        seen = graph.node("DiTFeatures", column, model=model, positive=positive, image=image, vae=vae)
        part = rectangle(graph, column, 1024, 1024, (384, 256, 256, 256)) if seed == 0 else []
        graph.group(title, sampler, drawn, seen, *part)
        made.append((image, seen.out("features"), part))
    (source_image, source, (*_, mask)), (target_image, target, _) = made
    found = graph.node(
        "MatchFeatures",
        4,
        source=source,
        target=target,
        mask=mask.out("MASK"),
        points="448, 320; 576, 320; 512, 448",
        source_image=source_image,
        target_image=target_image,
    )
    shown = [
        graph.node("PreviewImage", 4, title="Points", images=found.out("lines")),
        graph.node("PreviewImage", 5, title="How alike", images=found.out("heat")),
        graph.node("MaskPreview", 5, title="The part in the other picture", mask=found.out("mask")),
    ]
    graph.group("The part in the other picture", found, *shown)


def words(base: Base) -> None:
    graph, model, clip, vae = base.graph, base.model, base.clip, base.vae
    wanted = graph.node("PromptWords", 1, title="Prompt, and the word in it", clip=clip, text=BEAR, words="bear")
    nothing = graph.node("CLIPTextEncode", 1, title="Negative prompt", clip=clip, text="")
    graph.group("Prompt", wanted, nothing)
    latent = size(graph)
    sampling = shared(graph)
    conditions = {"positive": wanted.out("conditioning"), "negative": nothing.out("CONDITIONING")}
    options = graph.node("DetailGuidanceOptions", 2, words=wanted.out("words"))
    detail = graph.node("DetailGuidance", 2, model=model, options=options.out("DG_OPTIONS"), **STRENGTH)
    sampler = graph.node("KSampler", 2, model=detail.out("MODEL"), latent_image=latent, **conditions, **sampling)
    drawn = picture(graph, 2, sampler.out("LATENT"), vae, "detail_on_a_word")
    graph.group("With detail on the word", options, detail, sampler, *drawn)
    plain = graph.node("KSampler", 3, model=model, latent_image=latent, **conditions, **sampling)
    before = graph.node("VAEDecode", 3, samples=plain.out("LATENT"), vae=vae)
    graph.group("Without", plain, before)
    compared(graph, 3, drawn[0].out("IMAGE"), before.out("IMAGE"), ("without", "with"))
    found = graph.node(
        "PromptWordMask",
        4,
        model=model,
        positive=conditions["positive"],
        vae=vae,
        words=wanted.out("words"),
        image=drawn[0].out("IMAGE"),
    )
    over = graph.node("PreviewImage", 4, title="Where the word is", images=found.out("overlay"))
    graph.group("The finished picture's mask, for other nodes", found, over)


def follow_mask(base: Base) -> None:
    graph, model, vae, positive = base.graph, base.model, base.vae, base.positive
    video = graph.node("LoadVideo", 2, file="your_video.mp4")
    parts = graph.node("GetVideoComponents", 2, video=video.out("VIDEO"))
    frames = graph.node("ImageFromBatch", 2, image=parts.out("images"), batch_index=0, length=16)
    scaled = graph.node(
        "ImageScale", 2, image=frames.out("IMAGE"), upscale_method="lanczos", width=768, height=512, crop="center"
    )
    graph.group("A video", video, parts, frames, scaled)
    part = rectangle(graph, 3, 768, 512, (256, 128, 256, 256))
    graph.group("A part of its first frame", *part)
    image = scaled.out("IMAGE")
    # The authors' for videos: little noise, one draw, 24 channels dropped.
    how = {"noise_level": 0.09, "draws": 1, "massive_ratio": 1.0, "max_channels": 24}
    seen = graph.node("DiTFeatures", 4, model=model, positive=positive, image=image, vae=vae, **how)
    found = graph.node("MatchFeatures", 4, source=seen.out("features"), mask=part[-1].out("MASK"), source_image=image)
    mask = graph.node("MaskPreview", 5, mask=found.out("mask"))
    heat = graph.node("PreviewImage", 5, title="How alike", images=found.out("heat"))
    graph.group("The part in every frame", seen, found, mask, heat)


def parts_of_a_picture(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    pictures = size(graph, title="Size and number of pictures", batch_size=2)
    sampler = graph.node(
        "KSampler", 2, model=model, positive=positive, negative=negative, latent_image=pictures, **SAMPLING
    )
    drawn = graph.node("VAEDecode", 2, samples=sampler.out("LATENT"), vae=vae)
    image = graph.node("PreviewImage", 2, title="Pictures", images=drawn.out("IMAGE"))
    graph.group("Two pictures", sampler, drawn, image)
    seen = graph.node("DiTFeatures", 3, model=model, positive=positive, image=drawn.out("IMAGE"), vae=vae)
    shown = graph.node("ShowFeatures", 3, features=seen.out("features"))
    report = graph.node("PreviewAny", 3, source=seen.out("report"))
    views = [
        graph.node("PreviewImage", 4, title="Components", images=shown.out("components")),
        graph.node("PreviewImage", 4, title="Parts", images=shown.out("parts")),
        graph.node("MaskPreview", 4, title="A mask for each part", mask=shown.out("masks")),
    ]
    graph.group("What the model sees in them", seen, shown, report, *views)


# The base is SD3.5 Medium with a prompt and a negative one; each row says what is otherwise. Numbers of the models from
# FLUX.2 on are those of comfyui-workflow-templates 0.11.97.
WORKFLOWS = {
    "side_by_side": Workflow(
        title="01 Start here - without and with",
        note=(
            "**The same picture without and with Detail Guidance.**\n\n"
            "1. Choose your model on the left, write what you want to see, and run.\n"
            "2. Move the pointer over the picture on the right: left of it *without*, right of it *with*.\n"
            "3. Move **detail** on the node *Detail Guidance* until you like what you see.\n\n"
            f"{NOT_MEASURED}"
        ),
        add=comparison,
    ),
    "ksampler": Workflow(
        title="02 In your own graph - KSampler",
        note=(
            "**Detail Guidance** goes between the model and a sampler of ComfyUI's own. For another model change the "
            "loader and these numbers:\n\n"
            "- SD3.5 Medium, SD3.5 Large: cfg 4.5, 28 steps, sgm_uniform\n"
            "- SD3 Medium: cfg 5, 28 steps, sgm_uniform\n"
            "- a de-distilled Flux: cfg 3.5, 28 steps, simple\n"
            "- FLUX.1-schnell and others of few steps: cfg 1, 4 steps, simple. They have little room for guidance: "
            "expect a small effect, and destroyed pictures sooner.\n\n"
            f"{NOT_MEASURED}"
        ),
        add=ksampler,
    ),
    "calibrate": Workflow(
        title="03 Find your setting",
        note=(
            "**Detail Guidance Calibrate** samples your model at every layer and scale and shows them side by side: "
            "here 2 "
            "pictures 13 times, once for a model. It gives the largest scale that keeps the layout. For a "
            "recommendation, "
            "connect photographs of what the prompt says to **reference** (*Load Image*, at least 1024 × 1024) and "
            "raise "
            "the batch size to 8 or more. The panel of *Detail Guidance* then offers what came out; the group on the "
            "right "
            "uses it at once."
        ),
        add=calibrate,
    ),
    "words": Workflow(
        title="04 More detail on a word",
        note=(
            "More detail on the bear, not on the meadow, by typing *bear*. While the picture is sampled, **Detail "
            "Guidance** reads where the model's own attention has the word, and adds detail there; its panel shows "
            "where. "
            "*Detail Foreground* in place of *Detail Prompt Words* needs no word. **Detail Word Mask** reads the "
            f"finished picture, or any other, for whatever takes a mask.\n\n{NOT_MEASURED}"
        ),
        add=words,
        prompt=None,
    ),
    "detailer": Workflow(
        title="05 More detail in a part - detailer",
        note=(
            "A part of the picture is cut out, enlarged, sampled again with **Detail Guidance** and put back. "
            "Detailers of "
            "other packs that take a model, Impact Pack's among them, work alike: give theirs the model from *Detail "
            "Guidance*. `start_percent` and `end_percent` are of the whole schedule, of which a denoise of 0.4 runs "
            "the "
            f"last part.\n\nNothing was measured on detailers. {NOT_MEASURED}"
        ),
        add=detailer,
    ),
    "app": Workflow(
        title="06 As an app",
        note=(
            "The same picture without and with Detail Guidance, as an app: a prompt, a seed, the strength, and two "
            f"pictures. Pages without apps show this graph.\n\n{NOT_MEASURED}"
        ),
        add=app,
    ),
    "flux_dev": Workflow(
        title="11 FLUX.1 dev",
        note=(
            "**FLUX.1-dev** has its guidance distilled into it: `cfg` is 1, Detail Guidance works alone, and no "
            f"negative prompt is computed.\n\n{NOT_MEASURED}"
        ),
        add=flux_dev,
        load=partial(
            files,
            model=f"{HUGGING_FACE}/black-forest-labs/FLUX.1-dev/resolve/main/flux1-dev.safetensors",
            encoders=(CLIP_L, T5),
            type="flux",
            vae=FLUX_VAE,
        ),
        negative=None,
    ),
    "flux2_klein": Workflow(
        title="12 FLUX.2 Klein",
        note=(
            "**FLUX.2 Klein 4B (base)** with CFG. The distilled one (`flux-2-klein-4b`) takes `cfg` 1 and 4 steps, and "
            f"no negative prompt: expect a small effect there.\n\n{NOT_MEASURED}"
        ),
        add=flux2_klein,
        load=partial(
            files,
            model=f"{COMFY}/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-base-4b.safetensors",
            encoders=(f"{COMFY}/flux2-klein/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",),
            type="flux2",
            vae=f"{COMFY}/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
        ),
    ),
    "chroma": Workflow(
        title="13 Chroma",
        note=f"**Chroma1-HD** with CFG.\n\n{NOT_MEASURED}",
        add=chroma,
        load=partial(
            files,
            model=f"{COMFY}/Chroma1-HD_repackaged/resolve/main/split_files/diffusion_models/Chroma1-HD-fp8mixed.safetensors",
            encoders=(T5_FP8,),
            type="chroma",
            vae=FLUX_VAE,
            shift=("ModelSamplingAuraFlow", 1.0),
            tokens=0,
        ),
        negative="blurry, low quality, unfinished sketch, greyscale",
    ),
    "z_image": Workflow(
        title="14 Z-Image",
        note=(
            "**Z-Image** with CFG. Z-Image Turbo (`z_image_turbo_bf16`) takes `cfg` 1 and 8 steps: expect a small "
            f"effect there.\n\n{NOT_MEASURED}"
        ),
        add=partial(
            ksampler,
            sampling=SAMPLING | {"steps": 25, "cfg": 4.0, "sampler_name": "res_multistep", "scheduler": "simple"},
        ),
        load=partial(
            files,
            model=f"{COMFY}/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors",
            encoders=(QWEN_3,),
            type="lumina2",
            vae=FLUX_VAE,
            shift=("ModelSamplingAuraFlow", 3.0),
        ),
    ),
    "qwen_image": Workflow(
        title="15 Qwen-Image",
        note=f"**Qwen-Image** with CFG.\n\n{NOT_MEASURED}",
        add=partial(ksampler, sampling=SAMPLING | {"steps": 20, "cfg": 4.0, "scheduler": "simple"}, pixels=1328),
        load=partial(
            files,
            model=f"{COMFY}/Qwen-Image_ComfyUI/resolve/main/split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
            encoders=(
                f"{COMFY}/Qwen-Image_ComfyUI/resolve/main/split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
            ),
            type="qwen_image",
            vae=f"{COMFY}/Qwen-Image_ComfyUI/resolve/main/split_files/vae/qwen_image_vae.safetensors",
            shift=("ModelSamplingAuraFlow", 3.1),
        ),
    ),
    "wan": Workflow(
        title="16 Wan 2.2 - video",
        note=(
            "**Wan 2.2 5B**, from text to video. For a video that begins with a picture connect one to **start_image**."
            f"\n\n{NOT_MEASURED}"
        ),
        add=wan,
        load=partial(
            files,
            model=f"{COMFY}/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/diffusion_models/wan2.2_ti2v_5B_fp16.safetensors",
            encoders=(
                f"{COMFY}/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
            ),
            type="wan",
            vae=f"{COMFY}/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/vae/wan2.2_vae.safetensors",
            shift=("ModelSamplingSD3", 8.0),
        ),
        prompt=FILM,
        negative="blurry, overexposed, still picture, subtitles",
    ),
    "probe": Workflow(
        title="21 Massive activations - probe",
        note=(
            "**Massive Activation Probe** samples a few steps and says which channels are massive at which blocks. Its "
            "profile fixes them for Detail Guidance. Saved, it is found again by *Load Massive Activation Profile*, so "
            f"that the probe need not run each time.\n\n{NOT_MEASURED}"
        ),
        add=probe,
    ),
    "parts": Workflow(
        title="22 Features - parts of pictures",
        note=(
            "**Show DiT Features** divides pictures into parts that the model takes for alike, without words: the same "
            "part "
            "has one colour in all of them, and a mask. Two pictures are drawn here; *Load Image* can stand in their "
            "place."
        ),
        add=parts_of_a_picture,
        prompt=BEAR,
    ),
    "transfer_mask": Workflow(
        title="23 Features - a mask in another picture",
        note=(
            "**Match DiT Features** finds a part of one picture in another: here the middle of the one. For pictures "
            "of yours, "
            "put *Load Image* in place of the samplers and paint the part in its mask editor; the prompt says what "
            "both "
            "show. The mask can be used as any other: for *Detail Guidance Options*, say, or for inpainting."
        ),
        add=transfer_mask,
        prompt=BEAR,
    ),
    "follow_mask": Workflow(
        title="24 Features - follow a mask through a video",
        note=(
            "**Match DiT Features** without a target follows a mask of a video's first frame through the others. "
            "Choose a video, say in the prompt what it shows, and set the place of the part; or paint it: save the "
            "first frame, open it in *Load Image*, and connect its mask. A model for pictures does it too: each frame "
            "is a picture."
        ),
        add=follow_mask,
        prompt=BEAR,
        negative=None,
    ),
}


def file_of(name: str) -> Path:
    """The file of the workflow that has this name above."""
    return FOLDER / f"{WORKFLOWS[name].title}.json"


def build(definitions: Definitions) -> dict[str, str]:
    """File name → its text."""
    return {
        file_of(name).name: json.dumps(each.build(definitions).saved(f"detail_guidance_{name}"), indent=2) + "\n"
        for name, each in WORKFLOWS.items()
    }


async def main() -> None:
    async with Server() as server:
        for name, text in build(await server.get("/object_info")).items():
            (FOLDER / name).write_text(text)
            print(FOLDER / name)


if __name__ == "__main__":
    asyncio.run(main())
