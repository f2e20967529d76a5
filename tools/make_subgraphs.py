"""Writes subgraphs/*.json, the blocks that the page offers in its search and node library, from the descriptions below.

    .host/venv/bin/python tools/make_subgraphs.py

As in make_workflows.py, inputs, their order and their defaults come from the host itself.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from comfy_server import Server
from graph import COLUMN, WIDGETS, Definitions, Graph, Node, Output
from make_workflows import BEAR, SAMPLING

FOLDER = Path(__file__).resolve().parent.parent / "subgraphs"
INPUTS, OUTPUTS = -10, -20  # the page's own ids for the two ends of a subgraph
PROMOTED = "-1"  # and for a widget that is an input of the block
PREVIEW = "$$canvas-image-preview"
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
SLOT = 20  # pixels


@dataclass(frozen=True)
class Inside:
    """What a block is made of.

    Attributes:
        outputs: name → the output of a node inside.
        widget: a widget inside that the block shows too: its node and name.
        preview: a node inside whose picture the block shows on newer pages, which show no other node's widgets.
    """

    outputs: dict[str, Output]
    widget: tuple[Node, str] | None = None
    preview: Node | None = None


@dataclass(frozen=True)
class Block:
    """A block of the node library.

    Attributes:
        description: the sentence that the library shows.
        inputs: name → the kind of a node inside and its input, whose type and default the block's takes.
        fill: puts the nodes into a graph. The node that it is given has the block's inputs as its outputs.
        values: of widgets, where they are not the host's defaults.
    """

    description: str
    inputs: dict[str, tuple[str, str]]
    fill: Callable[[Graph, Node], Inside]
    values: dict[str, Any]

    def saved(self, name: str, first: int, definitions: Definitions) -> dict[str, Any]:
        """The block as the page publishes one: a graph of a single node, with the subgraph behind it.

        Args:
            first: what the ids of the nodes inside begin after. Newer pages give a node another id where the user's
                graph has that one, and then look for the preview at the old one.
        """
        inputs, widgets = self._inputs(definitions)
        graph = Graph(definitions)
        ends = [{**each, "links": []} for each in inputs]
        inside = self.fill(graph, Node({"id": INPUTS, "outputs": ends}, [each["name"] for each in inputs]))
        outputs = [_lead_out(graph, slot, *each) for slot, each in enumerate(inside.outputs.items())]
        _number(graph, first)

        identity = str(uuid5(NAMESPACE_URL, name))
        properties: dict[str, Any] = {"proxyWidgets": [(PROMOTED, each) for each in widgets]}
        if inside.widget:
            node, widget = inside.widget
            properties["proxyWidgets"].append((str(node.saved["id"]), widget))
        if inside.preview:
            source = str(inside.preview.saved["id"])
            exposed = {"name": PREVIEW, "sourceNodeId": source, "sourcePreviewName": PREVIEW}
            properties["previewExposures"] = [exposed]
        lines = max(len(inputs) - len(widgets), len(outputs))
        height = 30 + SLOT * lines + 26 * len(widgets) + (COLUMN if inside.widget else 0)
        block = {
            "id": 1,
            "type": identity,
            "pos": [0, 0],
            "size": [COLUMN, height],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [
                {**each, "link": None} | ({"widget": {"name": each["name"]}} if each["name"] in widgets else {})
                for each in inputs
            ],
            "outputs": [{"name": each["name"], "type": each["type"], "links": []} for each in outputs],
            "properties": properties,
            "widgets_values": list(widgets.values()),
        }
        subgraph = {
            "id": identity,
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": first + len(graph.nodes),
                "lastLinkId": len(graph.links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": name,
            "description": self.description,
            "category": "detail guidance",
            "inputNode": {"id": INPUTS, "bounding": [-200, 100, 120, 40 + SLOT * len(inputs)]},
            "outputNode": {
                "id": OUTPUTS,
                "bounding": [COLUMN * len(graph.bottom), 100, 120, 40 + SLOT * len(outputs)],
            },
            "inputs": [
                {"id": str(uuid5(NAMESPACE_URL, f"{name}/in/{each['name']}")), **each, "linkIds": end["links"]}
                for each, end in zip(inputs, ends, strict=True)
            ],
            "outputs": [{"id": str(uuid5(NAMESPACE_URL, f"{name}/out/{each['name']}")), **each} for each in outputs],
            "widgets": [],
            "nodes": [node.saved for node in graph.nodes],
            "groups": [],
            "links": [dict(zip(LINK, link, strict=True)) for link in graph.links],
            "extra": {},
        }
        return {
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [block],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [subgraph]},
            "extra": {"BlueprintDescription": self.description},
        }

    def _inputs(self, definitions: Definitions) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Names and types of the inputs, and those of them that are widgets with their values."""
        inputs, widgets = [], {}
        for name, (kind, inner) in self.inputs.items():
            socket, options = _sockets(definitions[kind])[inner]
            inputs.append({"name": name, "type": socket["type"]})
            if "widget" in socket:
                widgets[name] = self.values[name] if name in self.values else options["default"]
        return inputs, widgets


def _sockets(definition: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Name → an input as the page saves it, without links, and its options; in the page's order, widgets last."""
    sockets, widgets = {}, {}
    for group in ("required", "optional"):
        for name, (kind, *settings) in definition["input"].get(group, {}).items():
            options = settings[0] if settings else {}
            if isinstance(kind, list) or kind in WIDGETS:
                kind = "COMBO" if isinstance(kind, list) else kind
                widgets[name] = {"name": name, "type": kind, "widget": {"name": name}, "link": None}, options
            else:
                sockets[name] = {"name": name, "type": kind, "link": None}, options
    return sockets | widgets


def _number(graph: Graph, first: int) -> None:
    """Number nodes after `first`, and inputs as the page does: in a subgraph it takes links by the input's number."""
    for link in graph.links:
        link[1], link[3] = (end if end < 0 else first + end for end in (link[1], link[3]))
    for node in graph.nodes:
        node.saved["id"] += first
        links = {socket["name"]: socket["link"] for socket in node.saved["inputs"]}
        sockets = [socket for socket, _ in _sockets(graph.definitions[node.saved["type"]]).values()]
        for slot, socket in enumerate(sockets):
            socket["link"] = links.get(socket["name"])
            if socket["link"]:
                graph.links[socket["link"] - 1][4] = slot
        node.saved["inputs"] = sockets


def _lead_out(graph: Graph, slot: int, name: str, output: Output) -> dict[str, Any]:
    """Link a node's output to the end of the subgraph."""
    node, origin = output
    source = node.saved["outputs"][origin]
    link = len(graph.links) + 1
    graph.links.append([link, node.saved["id"], origin, OUTPUTS, slot, source["type"]])
    source["links"].append(link)
    return {"name": name, "type": source["type"], "linkIds": [link]}


SAMPLER = ["seed", "steps", "cfg", "sampler_name", "scheduler"]


def with_and_without(graph: Graph, block: Node) -> Inside:
    same = {name: block.out(name) for name in ("positive", "negative", "latent_image", *SAMPLER)}
    model, vae = block.out("model"), block.out("vae")
    plain = graph.node("KSampler", 0, title="Without", model=model, **same)
    without = graph.node("VAEDecode", 0, samples=plain.out("LATENT"), vae=vae)
    detail = graph.node("DetailGuidance", 1, model=model, dg_scale=block.out("dg_scale"))
    guided = graph.node("KSampler", 1, title="With", model=detail.out("MODEL"), **same)
    with_it = graph.node("VAEDecode", 1, samples=guided.out("LATENT"), vae=vae)
    left, right = without.out("IMAGE"), with_it.out("IMAGE")
    both = graph.node("ImageStitch", 2, image1=left, image2=right)
    compare = graph.node("DetailCompare", 2, images=right, reference=left)
    outputs = {"without": left, "with": right, "side by side": both.out("IMAGE")}
    preview = graph.node("PreviewImage", 2, images=both.out("IMAGE"))
    return Inside(outputs, (compare, "detail_compare"), preview)


def detail_pass(graph: Graph, block: Node) -> Inside:
    vae = block.out("vae")
    encoded = graph.node("VAEEncode", 0, pixels=block.out("image"), vae=vae)
    detail = graph.node("DetailGuidance", 0, model=block.out("model"), dg_scale=block.out("dg_scale"))
    inputs = {name: block.out(name) for name in ("positive", "negative", *SAMPLER, "denoise")}
    sampler = graph.node("KSampler", 1, model=detail.out("MODEL"), latent_image=encoded.out("LATENT"), **inputs)
    decoded = graph.node("VAEDecode", 1, samples=sampler.out("LATENT"), vae=vae)
    return Inside({"image": decoded.out("IMAGE")})


def on_words(graph: Graph, block: Node) -> Inside:
    prompt = graph.node("PromptWords", 0, **{name: block.out(name) for name in ("clip", "text", "words")})
    options = graph.node("DetailGuidanceOptions", 1, words=prompt.out("words"))
    guidance = {name: block.out(name) for name in ("model", "dg_scale")}
    detail = graph.node("DetailGuidance", 1, options=options.out("DG_OPTIONS"), **guidance)
    return Inside({"model": detail.out("MODEL"), "conditioning": prompt.out("conditioning")})


def of(kind: str, *names: str) -> dict[str, tuple[str, str]]:
    """Inputs that are called on the block as on the node inside."""
    return {name: (kind, name) for name in names}


# A file's name is the block's title.
BLOCKS = {
    "Sample with and without Detail Guidance": Block(
        description="Samples twice from one seed, without and with Detail Guidance, and shows both.",
        inputs=of("KSampler", "model", "positive", "negative", "latent_image")
        | of("VAEDecode", "vae")
        | of("KSampler", *SAMPLER)
        | of("DetailGuidance", "dg_scale"),
        fill=with_and_without,
        values=SAMPLING,
    ),
    "Detail pass (Detail Guidance)": Block(
        description="Adds detail to a finished picture: encodes it and samples it again at a low denoise with Detail "
        "Guidance.",
        inputs={"image": ("VAEEncode", "pixels")}
        | of("VAEEncode", "vae")
        | of("KSampler", "model", "positive", "negative", *SAMPLER, "denoise")
        | of("DetailGuidance", "dg_scale"),
        fill=detail_pass,
        values=SAMPLING | {"denoise": 0.4},
    ),
    "Detail on words (Detail Guidance)": Block(
        description="Detail Guidance where words of the prompt are in the picture: its model and its conditioning go "
        "to the sampler.",
        inputs=of("DetailGuidance", "model")
        | of("PromptWords", "clip", "text", "words")
        | of("DetailGuidance", "dg_scale"),
        fill=on_words,
        values={"text": BEAR, "words": "bear"},
    ),
}


def build(definitions: Definitions) -> dict[str, str]:
    """File name → its text."""
    return {
        f"{name}.json": json.dumps(block.saved(name, 1000 * number, definitions), indent=2) + "\n"
        for number, (name, block) in enumerate(BLOCKS.items(), 1)
    }


async def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    async with Server() as server:
        for name, text in build(await server.get("/object_info")).items():
            (FOLDER / name).write_text(text)
            print(FOLDER / name)


if __name__ == "__main__":
    asyncio.run(main())
