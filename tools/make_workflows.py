"""Writes workflows/*.json, the graphs that users drag onto the page, from the short descriptions below.

    .host/venv/bin/python tools/make_workflows.py

Which inputs a node has, and in which order, comes from the host itself, so a graph cannot name what is not there.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from comfy_server import Server

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
COLUMN = 400
# Room for what nodes show below their widgets after a run, on both pages, in Nodes 2.0 too; a text may be longer: what
# shows one is the last of its column.
SHOWN = {
    "DetailGuider": 160,
    "DetailGuidance": 160,
    "PreviewAny": 250,
    "PreviewImage": 360,
    "MaskPreview": 360,
    "SaveImage": 360,
    "LoadVideo": 260,
    "DetailCompare": 360,
}
Definitions = dict[str, Any]  # the host's /object_info

HUGGING_FACE = "https://huggingface.co"
SD35 = f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main"
TEXT_ENCODERS = f"{HUGGING_FACE}/comfyanonymous/flux_text_encoders/resolve/main"


@dataclass
class Node:
    """A node of the graph as the page saves it."""

    saved: dict[str, Any]
    outputs: list[str]

    def out(self, name: str) -> tuple["Node", int]:
        return self, self.outputs.index(name)


@dataclass
class Graph:
    """Nodes in columns, from left to right and from top to bottom."""

    definitions: Definitions
    nodes: list[Node] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    bottom: dict[int, int] = field(default_factory=dict)

    def node(
        self, kind: str, column: int, models: dict[str, str] | None = None, title: str | None = None, **inputs: Any
    ) -> Node:
        """A node of the host; `inputs` are other nodes' outputs or widgets' values. Widgets not given keep their
        defaults. `models`: folder/file → where to get it. `title`: where the kind's own does not say what it is for."""
        definition = self.definitions[kind]
        declared = {**definition["input"].get("required", {}), **definition["input"].get("optional", {})}
        unknown = inputs.keys() - declared.keys()
        if unknown:
            raise ValueError(f"{kind} has no input {', '.join(sorted(unknown))}.")
        number = len(self.nodes) + 1
        sockets, values = [], []
        for name in (name for group in definition["input_order"].values() for name in group if name in declared):
            of_type, *settings = declared[name]
            options = settings[0] if settings else {}
            socket = {"name": name, "type": of_type, "link": None}
            is_widget = isinstance(of_type, list) or of_type in WIDGETS
            linked = isinstance(inputs.get(name), tuple)
            if is_widget:
                first = of_type[0] if isinstance(of_type, list) and of_type else (options.get("options") or [None])[0]
                usual = options.get("default", first)
                values.append(usual if linked else inputs.get(name, usual))
                if options.get("control_after_generate"):
                    values.append("fixed")
                if not linked:
                    continue
                socket["widget"] = {"name": name}
            if linked:
                source, slot = inputs[name]
                socket["link"] = len(self.links) + 1
                output = source.saved["outputs"][slot]
                self.links.append([socket["link"], source.saved["id"], slot, number, len(sockets), output["type"]])
                output["links"].append(socket["link"])
            sockets.append(socket)
        names = definition["output_name"]
        outputs = [
            {"name": name, "type": kind_, "links": []} for name, kind_ in zip(names, definition["output"], strict=True)
        ]
        properties: dict[str, Any] = {"Node name for S&R": kind}
        if models:
            properties["models"] = [
                {"name": Path(path).name, "url": url, "directory": str(Path(path).parent)}
                for path, url in models.items()
            ]
        text = any(len(kind_) > 1 and kind_[1].get("multiline") for kind_ in declared.values())
        height = 20 + 22 * max(len(sockets), len(outputs)) + 26 * len(values) + 90 * text + SHOWN.get(kind, 0)
        saved = {"type": kind, "inputs": sockets, "outputs": outputs, "properties": properties}
        node = Node(saved | ({"title": title} if title else {}), names)
        return self._placed(node, column, height, values)

    def note(self, column: int, text: str) -> Node:
        lines = sum(1 + len(line) // 48 for line in text.splitlines())
        node = Node({"type": "MarkdownNote", "inputs": [], "outputs": [], "properties": {}}, [])
        return self._placed(node, column, 50 + 19 * lines, [text])

    def group(self, title: str, *nodes: Node) -> None:
        left, top = (min(node.saved["pos"][axis] for node in nodes) for axis in (0, 1))
        right, bottom = (max(node.saved["pos"][axis] + node.saved["size"][axis] for node in nodes) for axis in (0, 1))
        bounding = [left - 15, top - 75, right - left + 30, bottom - top + 105]
        self.groups.append({"id": len(self.groups) + 1, "title": title, "bounding": bounding, "color": "#3f789e"})

    def _placed(self, node: Node, column: int, height: int, values: list[Any]) -> Node:
        top = self.bottom.get(column, 100)
        self.bottom[column] = top + height + 125
        number = len(self.nodes)
        place = {"pos": [column * COLUMN, top], "size": [COLUMN - 60, height], "flags": {}, "order": number, "mode": 0}
        node.saved = {"id": number + 1, **place, **node.saved, "widgets_values": values}
        self.nodes.append(node)
        return node

    def saved(self, name: str) -> dict[str, Any]:
        return {
            "id": str(uuid5(NAMESPACE_URL, name)),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [node.saved for node in self.nodes],
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }


PROMPT = "a close-up photograph of an old oak's bark with moss and lichen, morning light, sharp focus"
NOT_MEASURED = (
    "Nobody has settled the best `dg_scale` and layer for this model. Start here, look at the picture and at "
    "**strength** on the node's panel, and raise `dg_scale` until textures turn inconsistent; then go back a little. "
    "Or measure them on your model: template *detail_guidance_calibrate*."
)
SD35_MEDIUM = "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
SAMPLING: dict[str, Any] = {"seed": 0, "steps": 28, "cfg": 4.5, "sampler_name": "euler", "scheduler": "sgm_uniform"}
Output = tuple[Node, int]
Loaded = tuple[Output, Output, Output]  # model, text encoder, autoencoder


def checkpoint(graph: Graph, file: str, url: str) -> Loaded:
    loader = graph.node("CheckpointLoaderSimple", 0, {f"checkpoints/{file}": url}, ckpt_name=file)
    graph.group("Model", loader)
    return loader.out("MODEL"), loader.out("CLIP"), loader.out("VAE")


def flux(graph: Graph, file: str, url: str) -> Loaded:
    encoders = {f"text_encoders/{name}": f"{TEXT_ENCODERS}/{name}" for name in ("clip_l.safetensors", T5)}
    ae = f"{HUGGING_FACE}/black-forest-labs/FLUX.1-dev/resolve/main/ae.safetensors"
    model = graph.node("UNETLoader", 0, {f"diffusion_models/{file}": url}, unet_name=file)
    text = graph.node("DualCLIPLoader", 0, encoders, clip_name1="clip_l.safetensors", clip_name2=T5, type="flux")
    pixels = graph.node("VAELoader", 0, {"vae/ae.safetensors": ae}, vae_name="ae.safetensors")
    graph.group("Model", model, text, pixels)
    return model.out("MODEL"), text.out("CLIP"), pixels.out("VAE")


T5 = "t5xxl_fp16.safetensors"


def prompts(graph: Graph, clip: tuple[Node, int], positive: str, negative: str | None) -> list[tuple[Node, int]]:
    texts = {"Prompt": positive} | ({} if negative is None else {"Negative prompt": negative})
    nodes = [graph.node("CLIPTextEncode", 1, title=title, clip=clip, text=text) for title, text in texts.items()]
    graph.group("Prompt", *nodes)
    return [node.out("CONDITIONING") for node in nodes]


def sd35_medium(graph: Graph) -> Loaded:
    return checkpoint(graph, SD35_MEDIUM, f"{SD35}/{SD35_MEDIUM}")


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
        note: the text beside the model.
        add: puts the rest onto the base.
        load: puts the model's loaders there.
        prompt: None where `add` has a node for it.
        negative: None where there is none.
    """

    note: str
    add: Callable[[Base], None]
    load: Callable[[Graph], Loaded] = sd35_medium
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


def size(graph: Graph, column: int = 1, title: str = "Size", **others: Any) -> tuple[Node, int]:
    latent = graph.node("EmptySD3LatentImage", column, width=1024, height=1024, **others)
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


def picture(graph: Graph, column: int, samples: tuple[Node, int], vae: tuple[Node, int], prefix: str) -> list[Node]:
    decoded = graph.node("VAEDecode", column, samples=samples, vae=vae)
    return [decoded, graph.node("SaveImage", column, images=decoded.out("IMAGE"), filename_prefix=prefix)]


def custom_sampling(graph: Graph, guider: Node, latent: Any, steps: int, scheduler: str, model: Any) -> Node:
    """The nodes around SamplerCustomAdvanced."""
    noise = graph.node("RandomNoise", 3, noise_seed=0)
    chosen = graph.node("KSamplerSelect", 3, sampler_name="euler")
    sigmas = graph.node("BasicScheduler", 3, model=model, scheduler=scheduler, steps=steps)
    parts = {"noise": noise.out("NOISE"), "sampler": chosen.out("SAMPLER"), "sigmas": sigmas.out("SIGMAS")}
    sampler = graph.node("SamplerCustomAdvanced", 3, guider=guider.out("GUIDER"), latent_image=latent, **parts)
    graph.group("Sampling", noise, chosen, sigmas, sampler)
    return sampler


def guider(base: Base, cfg: float, steps: int, scheduler: str, guidance: float | None = None) -> None:
    """The guider with SamplerCustomAdvanced. `guidance`: Flux's embedded one, in place of a negative prompt."""
    graph, model, positive = base.graph, base.model, base.positive
    if guidance is not None:
        embedded = graph.node("FluxGuidance", 1, conditioning=positive, guidance=guidance)
        graph.group("The model's own guidance", embedded)
        positive = embedded.out("CONDITIONING")
    latent = size(graph)
    conditions = {"positive": positive} | ({"negative": base.negative} if base.negative else {})
    detail = graph.node("DetailGuider", 2, model=model, **conditions, cfg=cfg)
    graph.group("Detail Guidance", detail)
    sampler = custom_sampling(graph, detail, latent, steps, scheduler, model)
    graph.group("Picture", *picture(graph, 4, sampler.out("output"), base.vae, "detail_guidance"))


def ksampler(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    inputs = {"positive": positive, "negative": negative, "latent_image": size(graph)}
    detail = graph.node("DetailGuidance", 2, model=model)
    graph.group("Detail Guidance", detail)
    sampler = graph.node("KSampler", 3, model=detail.out("MODEL"), **inputs, **SAMPLING)
    graph.group("Picture", sampler, *picture(graph, 3, sampler.out("LATENT"), vae, "detail_guidance"))


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
    detail = graph.node("DetailGuidance", 3, model=model, options=options.out("DG_OPTIONS"))
    graph.group("Detail Guidance with it", options, detail)
    sampler = graph.node("KSampler", 4, model=detail.out("MODEL"), **inputs, **SAMPLING)
    graph.group("Picture", sampler, *picture(graph, 4, sampler.out("LATENT"), vae, "detail_guidance"))


def calibrate(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    batch = size(graph, title="Size and number of pictures", batch_size=2)
    inputs = {"positive": positive, "negative": negative}
    sampling = shared(graph)
    found = graph.node("DetailGuidanceCalibrate", 2, model=model, vae=vae, latent_image=batch, **inputs, **sampling)
    sheet = graph.node("PreviewImage", 3, images=found.out("sheet"))
    plot = graph.node("PreviewImage", 3, images=found.out("plot"))
    report = graph.node("PreviewAny", 2, source=found.out("report"))
    graph.group("Which layer, which scale?", found, sheet, plot, report)
    layer = found.out("layer")
    detail = graph.node(
        "DetailGuidance",
        4,
        model=model,
        dg_scale=found.out("dg_scale"),
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
    detail = graph.node("DetailGuidance", 4, model=model)
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


def comparison(base: Base) -> None:
    graph, model, vae, positive, negative = base.graph, base.model, base.vae, base.positive, base.negative
    inputs = {"positive": positive, "negative": negative, "latent_image": size(graph), **shared(graph)}
    without = graph.node("KSampler", 2, model=model, **inputs)
    plain = picture(graph, 2, without.out("LATENT"), vae, "without")
    graph.group("Without", without, *plain)
    detail = graph.node("DetailGuidance", 3, model=model)
    with_it = graph.node("KSampler", 3, model=detail.out("MODEL"), **inputs)
    told = graph.node("DetailGuidanceReport", 3, latent=with_it.out("LATENT"))
    guided = picture(graph, 3, told.out("LATENT"), vae, "with")
    report = graph.node("PreviewAny", 3, source=told.out("report"))
    graph.group("With Detail Guidance", detail, with_it, told, *guided, report)
    compared(graph, 4, guided[0].out("IMAGE"), plain[0].out("IMAGE"), ("without", "with"))
    metrics = graph.node("DetailMetrics", 4, images=guided[0].out("IMAGE"), reference=plain[0].out("IMAGE"))
    spectrum = graph.node("PreviewImage", 4, images=metrics.out("spectrum"))
    graph.group("What changed", metrics, spectrum, graph.node("PreviewAny", 4, source=metrics.out("table")))


BEAR = "a photograph of a brown bear in a meadow, facing the camera"


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
    detail = graph.node("DetailGuidance", 2, model=model, options=options.out("DG_OPTIONS"))
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


# The base is SD3.5 Medium with a prompt and a negative one; each row says what is otherwise.
WORKFLOWS = {
    "sd3_medium": Workflow(
        note=(f"**Stable Diffusion 3 Medium** with CFG and Detail Guidance.\n\n{NOT_MEASURED}"),
        add=partial(guider, cfg=5.0, steps=28, scheduler="sgm_uniform"),
        load=partial(
            checkpoint,
            file="sd3_medium_incl_clips_t5xxlfp8.safetensors",
            url=f"{HUGGING_FACE}/stabilityai/stable-diffusion-3-medium/resolve/main/sd3_medium_incl_clips_t5xxlfp8.safetensors",
        ),
    ),
    "sd3.5_large": Workflow(
        note=(f"**Stable Diffusion 3.5 Large** with CFG and Detail Guidance.\n\n{NOT_MEASURED}"),
        add=partial(guider, cfg=4.5, steps=28, scheduler="sgm_uniform"),
        load=partial(
            checkpoint, file="sd3.5_large_fp8_scaled.safetensors", url=f"{SD35}/sd3.5_large_fp8_scaled.safetensors"
        ),
    ),
    "sd3.5_medium": Workflow(
        note=(f"**Stable Diffusion 3.5 Medium** with CFG and Detail Guidance.\n\n{NOT_MEASURED}"),
        add=partial(guider, cfg=4.5, steps=28, scheduler="sgm_uniform"),
        load=partial(checkpoint, file=SD35_MEDIUM, url=f"{SD35}/{SD35_MEDIUM}"),
    ),
    "flux_dev": Workflow(
        note=(
            "**FLUX.1-dev** has its guidance distilled into it: `cfg` is 1, Detail Guidance works alone, and no "
            "negative "
            "prompt is computed."
            f"\n\n{NOT_MEASURED}"
        ),
        add=partial(guider, cfg=1.0, steps=20, scheduler="simple", guidance=3.5),
        load=partial(
            flux,
            file="flux1-dev.safetensors",
            url=f"{HUGGING_FACE}/black-forest-labs/FLUX.1-dev/resolve/main/flux1-dev.safetensors",
        ),
        negative=None,
    ),
    "flux_dedistilled": Workflow(
        note=(
            "**A de-distilled Flux** takes true CFG, and Detail Guidance beside it. The authors' figures for Flux "
            "are for "
            "such a model."
            f"\n\n{NOT_MEASURED}"
        ),
        add=partial(guider, cfg=3.5, steps=28, scheduler="simple"),
        load=partial(
            flux,
            file="consolidated_s6700.safetensors",
            url=f"{HUGGING_FACE}/nyanko7/flux-dev-de-distill/resolve/main/consolidated_s6700.safetensors",
        ),
    ),
    "ksampler": Workflow(
        note=f"**Detail Guidance** goes between the model and a sampler of ComfyUI's own.\n\n{NOT_MEASURED}",
        add=ksampler,
    ),
    "side_by_side": Workflow(
        note=f"The same seed without and with Detail Guidance, side by side.\n\n{NOT_MEASURED}", add=comparison
    ),
    "probe": Workflow(
        note=(
            "**Massive Activation Probe** samples a few steps and says which channels are massive at which blocks. Its "
            "profile fixes them for Detail Guidance. Saved, it is found again by *Load Massive Activation Profile*, so "
            f"that the probe need not run each time.\n\n{NOT_MEASURED}"
        ),
        add=probe,
    ),
    "calibrate": Workflow(
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
    "detailer": Workflow(
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
    "words": Workflow(
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
    "transfer_mask": Workflow(
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
    "parts": Workflow(
        note=(
            "**Show DiT Features** divides pictures into parts that the model takes for alike, without words: the same "
            "part "
            "has one colour in all of them, and a mask. Two pictures are drawn here; *Load Image* can stand in their "
            "place."
        ),
        add=parts_of_a_picture,
        prompt=BEAR,
    ),
    "few_steps": Workflow(
        note=(
            "**FLUX.1-schnell**, distilled to four steps, without CFG. Such models have little room for guidance: "
            "expect a "
            "small effect, and destroyed pictures sooner. Nothing was measured on few-step models."
            f"\n\n{NOT_MEASURED}"
        ),
        add=partial(guider, cfg=1.0, steps=4, scheduler="simple"),
        load=partial(
            flux,
            file="flux1-schnell.safetensors",
            url=f"{HUGGING_FACE}/black-forest-labs/FLUX.1-schnell/resolve/main/flux1-schnell.safetensors",
        ),
        negative=None,
    ),
}


def build(definitions: Definitions) -> dict[str, str]:
    """File name → its text."""
    names = {f"detail_guidance_{name}": workflow for name, workflow in WORKFLOWS.items()}
    return {
        f"{name}.json": json.dumps(each.build(definitions).saved(name), indent=2) + "\n" for name, each in names.items()
    }


async def main() -> None:
    async with Server() as server:
        for name, text in build(await server.get("/object_info")).items():
            (FOLDER / name).write_text(text)
            print(FOLDER / name)


if __name__ == "__main__":
    asyncio.run(main())
