"""The host's own workflow templates: which models they sample, and their graphs as the host validates them.

    .host/venv/bin/python tools/templates.py > docs/TEMPLATES.md

writes the table of those of the ComfyUI at hand.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import comfyui_workflow_templates
import provision

sys.path.insert(0, str(provision.comfyui_dir()))

from comfyui_version import __version__ as comfyui_version

SAMPLERS = {
    *("KSampler", "KSamplerAdvanced", "SamplerCustom", "BasicGuider", "CFGGuider", "DualCFGGuider", "DualModelGuider"),
    *("PerpNegGuider", "LTXVDualCFGGuider"),
}
# Weights' file names → the family of their network, the first that matches: read in the host's detection of models and
# in the templates' own descriptions, for the weights are not here.
FAMILIES = {
    r"^pid_|^pixeldit": "PixelDiT / PiD",
    r"hidream_e1": "HiDream",
    r"hidream_o1": "HiDream-O1",
    r"hidream": "HiDream",
    r"netayume|newbie|z_image": "Lumina 2 / Z-Image",
    r"flux|longcat|ovis": "Flux / Flux.2",
    r"ltx-2": "LTX-2",
    r"ltx": "LTX-Video",
    r"sd3": "SD3 / SD3.5",
    r"chroma": "Chroma / Chroma Radiance",
    r"firered|qwen": "Qwen-Image",
    r"anima-": "Cosmos Predict2 / Anima",
    r"cosmos": "Cosmos Predict2 / Anima",
    r"boogu": "Boogu",
    r"capybara|hunyuan_?video": "HunyuanVideo / HunyuanImage",
    r"ernie": "Ernie-Image",
    r"ideogram": "Ideogram 4",
    r"joyai": "JoyImage",
    r"kandinsky": "Kandinsky 5",
    r"krea2": "Krea 2",
    r"^lens": "Lens",
    r"mage_flow": "Mage-Flow",
    r"minimax_h3": "MiniMax H3",
    r"omnigen": "OmniGen2",
    r"void_pass": "CogVideoX",
    r"scail": "Wan SCAIL",
    r"animate_2": "Wan Animate 2",
    r"humo": "Wan HuMo",
    r"causal_forcing": "causal Wan",
    r"wan|chrono_edit|bernini": "Wan",
    r"seedvr": "SeedVR2",
    r"mochi": "Mochi",
    r"sd_xl|v1-5|v2-1|svd|lotus|512-|architecturerealmix|awpainting|interiordesign|realistic|dreamshaper": "U-Net",
    r"ace_?step|audio|music": "sound",
    r"hunyuan_?3d|triposplat|trellis": "3D",
}
REFUSED = {
    "causal Wan": "frame by frame, with a cache of the keys and values of those before",
    "SeedVR2": "an upscaler of one step, which starts from the picture",
}
NO_TRANSFORMER = ("U-Net", "sound", "3D")
BYPASSED, MUTED = 4, 2
NOT_RUN = {"Note", "MarkdownNote", "PrimitiveNode"}  # the page's own nodes
SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS = -10, -20  # ids of a subgraph's own ends


def files() -> list[Path]:
    """Every template's workflow, of all the template packages beside the host's first one."""
    folders = Path(comfyui_workflow_templates.__file__).parents[1].glob("comfyui_workflow_templates*/templates")
    found = (file for folder in folders for file in folder.glob("*.json") if not file.name.startswith("index"))
    return sorted(file for file in found if isinstance(json.loads(file.read_text()).get("nodes"), list))


@dataclass(frozen=True)
class Node:
    """
    Attributes:
        inputs: name → (id of a node, number of its output), of those that are linked.
        types: input name → its type, linked or not.
        outputs: types.
        values: of its widgets: in their order, or by name.
    """

    kind: str
    inputs: dict[str, tuple[str, int]]
    types: dict[str, str]
    outputs: list[str]
    values: list[Any] | dict[str, Any]
    mode: int


def graph(workflow: dict[str, Any]) -> dict[str, Node]:
    """A workflow's nodes by id, those of its subgraphs in their places, without bypassed and muted ones."""
    subgraphs = {each["id"]: each for each in workflow.get("definitions", {}).get("subgraphs", [])}
    nodes: dict[str, Node] = {}
    _flatten(workflow, subgraphs, "", {}, nodes)
    return {key: _without_passing(nodes, node) for key, node in nodes.items() if _runs(node)}


def prompt(nodes: dict[str, Node]) -> dict[str, dict[str, Any]]:
    """What the host is asked to run, with links alone: widgets are not our matter."""
    return {
        key: {
            "class_type": node.kind,
            "inputs": {name: list(source) for name, source in node.inputs.items() if source[0] in nodes},
        }
        for key, node in nodes.items()
    }


def models(nodes: dict[str, Node], key: str) -> Iterator[Node]:
    """The loaders whose MODEL comes to a node, through whatever patches it."""
    node = nodes[key]
    sources = [source for name, (source, _) in node.inputs.items() if node.types.get(name) in ("MODEL", "*")]
    sources = [source for source in sources if source in nodes]
    if not sources:
        yield node
    for source in sources:
        yield from models(nodes, source)


def _flatten(
    level: dict[str, Any],
    subgraphs: dict[str, Any],
    prefix: str,
    outside: dict[int, tuple[str, int]],
    nodes: dict[str, Node],
) -> dict[int, tuple[str, int]]:
    """Adds a level's nodes; what its outputs are linked to, by their number.

    Args:
        outside: number of an input of the level → what comes in there.
    """
    links = {
        link[0]: link[1:3] if isinstance(link, list) else None for link in level["links"] if isinstance(link, list)
    }
    links |= {link["id"]: [link["origin_id"], link["origin_slot"]] for link in level["links"] if isinstance(link, dict)}
    ends = {link["id"]: link for link in level["links"] if isinstance(link, dict)}
    inner_outputs: dict[int, dict[int, tuple[str, int]]] = {}

    def source(link: int | None) -> tuple[str, int] | None:
        if link is None or link not in links:
            return None
        origin, slot = links[link]
        if origin == SUBGRAPH_INPUTS:
            return outside.get(slot)
        if origin in inner_outputs:
            return inner_outputs[origin].get(slot)
        return f"{prefix}{origin}", slot

    # Subgraphs first need what comes into them, which may be another subgraph's output: go round until all are in.
    waiting = [
        node for node in level["nodes"] if node["type"] in subgraphs and node.get("mode") not in (BYPASSED, MUTED)
    ]
    names = {node["id"] for node in waiting}
    while waiting:
        ready = [node for node in waiting if not {(links.get(i.get("link")) or [0])[0] for i in node["inputs"]} & names]
        for node in ready or waiting[:1]:
            given = {slot: found for slot, i in enumerate(node["inputs"]) if (found := source(i.get("link")))}
            inner = _flatten(subgraphs[node["type"]], subgraphs, f"{prefix}{node['id']}:", given, nodes)
            inner_outputs[node["id"]] = inner
            names.discard(node["id"])
            waiting.remove(node)
    for node in level["nodes"]:
        if node["id"] in inner_outputs:
            continue
        linked = {i["name"]: found for i in node.get("inputs") or [] if (found := source(i.get("link")))}
        types = {i["name"]: str(i.get("type")) for i in node.get("inputs") or []}
        outputs = [str(o.get("type")) for o in node.get("outputs") or []]
        values = node.get("widgets_values") or []
        nodes[f"{prefix}{node['id']}"] = Node(node["type"], linked, types, outputs, values, node.get("mode", 0))
    return {
        end["target_slot"]: found
        for end in ends.values()
        if end["target_id"] == SUBGRAPH_OUTPUTS and (found := source(end["id"]))
    }


def _runs(node: Node) -> bool:
    return node.mode not in (BYPASSED, MUTED) and node.kind not in NOT_RUN and node.kind != "Reroute"


def _without_passing(nodes: dict[str, Node], node: Node) -> Node:
    """Links of a node past reroutes and bypassed nodes, as the page resolves them: by the type."""
    inputs = {}
    for name, source in node.inputs.items():
        seen: tuple[str, int] | None = source
        while seen and (passing := nodes.get(seen[0])) and (passing.kind == "Reroute" or passing.mode == BYPASSED):
            wanted = passing.outputs[seen[1]]
            through = [i for i, kind in passing.types.items() if passing.kind == "Reroute" or kind == wanted]
            seen = next((passing.inputs[i] for i in through if i in passing.inputs), None)
        if seen and seen[0] in nodes and _runs(nodes[seen[0]]):
            inputs[name] = seen
    return Node(node.kind, inputs, node.types, node.outputs, node.values, node.mode)


@dataclass(frozen=True)
class Sampled:
    """A model that a template samples: its file, its family, and the reason if it is refused."""

    file: str
    family: str
    refused: str | None


def sampled(nodes: dict[str, Node]) -> list[Sampled]:
    loaders = [loader for key, node in nodes.items() if node.kind in SAMPLERS for loader in models(nodes, key)]
    files = {_file(loader) for loader in loaders}
    return [Sampled(file, family_of(file), _refusal(file)) for file in sorted(files)]


def family_of(file: str) -> str:
    return next((family for pattern, family in FAMILIES.items() if re.search(pattern, file.lower())), "unknown")


def _file(loader: Node) -> str:
    values = loader.values if isinstance(loader.values, list) else list(loader.values.values())
    return next((value for value in values if isinstance(value, str)), loader.kind)


def _refusal(file: str) -> str | None:
    if "hidream_e1" in file:
        return "its reference's tokens lie between the picture's"
    return REFUSED.get(family_of(file))


def table() -> str:
    """Of the templates of the packages at hand, as Markdown."""
    packages, host = version("comfyui-workflow-templates"), f"ComfyUI {comfyui_version}"
    rows, right, refused = [], 0, 0
    for file in files():
        found = sampled(graph(json.loads(file.read_text())))
        found = [each for each in found if each.family not in NO_TRANSFORMER]
        if not found:
            continue
        reasons = sorted({each.refused for each in found if each.refused})
        right, refused = right + (not reasons), refused + bool(reasons)
        names = ", ".join(sorted({each.family for each in found}))
        rows.append(f"| {file.stem} | {names} | {'refused: ' + '; '.join(reasons) if reasons else 'supported'} |")
    every = right + refused
    head = f"""# ComfyUI's templates

Of comfyui-workflow-templates {packages} ({host}), {every} templates sample a Diffusion Transformer for pictures
or video, and {right} of them ({100 * right / every:.0f} %) do it with a model of a family in [MODELS.md](MODELS.md).
Which family a template's weights are is read from their file names; each family is tested with a tiny model, these
workflows are not run, and what else they put on the model is not tried here. Each takes *Detail Guidance* before its
samplers, and *Detail Guidance Guider* in the place of its guiders, without a new validation error (nodes of
other packs and of online services left out; `tests/host/test_templates.py`). Written by `tools/templates.py`.

| template | family | |
|---|---|---|
"""
    return head + "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    print(table(), end="")
