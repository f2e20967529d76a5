"""The graphs that are offered, on the page: as they are loaded, and after a run, when nodes show pictures."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from provision import base_directory

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tests/reference_model/demo.json"
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
VIDEO = "detail_guidance_test.mp4"

REFERENCE_MODEL = "DetailGuidanceReferenceModel"
LOADERS = {
    "CheckpointLoaderSimple": 0,
    "UNETLoader": 0,
    "CLIPLoader": 1,
    "DualCLIPLoader": 1,
    "VAELoader": 2,
}  # → its first output's place
SMALLER = 8  # times, in every length
FEWER_STEPS = {"KSampler": 2, "BasicScheduler": 1, "MassiveActivationProbe": 2, "MassiveActivationMap": 2}


def runnable(workflow):
    """The workflow on the reference model, at a size and in a number of steps that take seconds."""
    objects = any(node["type"] == "PromptWords" for node in workflow["nodes"])
    text = "bear wood planks" if objects else "grass 1"
    for node in workflow["nodes"]:
        values = [_smaller(value) for value in node.get("widgets_values", [])]
        kind = node["type"]
        if kind in LOADERS:
            _load_reference_model(workflow, node, LOADERS[kind])
            values = [objects]
        elif kind == "CLIPTextEncode":
            values = [values[0] and text]
        elif kind == "PromptWords":
            values = [text, "bear", *values[2:]]
        elif kind == "MatchFeatures":
            values = [_points(value) for value in values]
        elif kind == "DetailGuidanceCalibrate":
            values[2], values[6], values[7] = 2, "0.7", "0.25"
        elif kind == "Wan22ImageToVideoLatent":  # the reference model knows pictures only
            node.update(type="EmptySD3LatentImage", inputs=[])
            workflow["links"] = [link for link in workflow["links"] if link[3] != node["id"]]
            values = [*values[:2], 1]
        elif kind == "LoadVideo":
            values[0] = VIDEO
        elif kind in FEWER_STEPS:
            values[FEWER_STEPS[kind]] = 2
        elif node.get("title") == "Steps":
            values[0] = 2
        node["widgets_values"] = values
    return workflow


def _points(value):
    return re.sub(r"\d+", lambda found: str(int(found[0]) // SMALLER), value) if isinstance(value, str) else value


def _smaller(value):
    return value // SMALLER if type(value) is int and value >= 128 else value


def _load_reference_model(workflow, node, first):
    outputs = [{"name": kind, "type": kind, "links": []} for kind in ("MODEL", "CLIP", "VAE")]
    for link in workflow["links"]:
        if link[1] == node["id"]:
            link[2] += first
            outputs[link[2]]["links"].append(link[0])
    node.update(type=REFERENCE_MODEL, outputs=outputs, properties={})


@pytest.fixture(scope="session")
def video():
    """A short one among the host's inputs."""
    file = base_directory() / "input" / VIDEO
    with av.open(file, "w") as container:
        stream = container.add_stream("h264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(4):
            picture = np.random.default_rng(number).integers(0, 255, (64, 96, 3), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    yield
    file.unlink()


# Nodes 2.0 places nodes in a pane that is moved and scaled as a whole: in there they have the graph's own units.
BOXES = """() => {
    const { graph } = window.app.canvas;
    const title = window.LiteGraph.NODE_TITLE_HEIGHT;
    const box = ({ id, pos, size }) => {
        const drawn = window.LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${id}"]`);
        if (!drawn) return [pos[0], pos[1] - title, pos[0] + size[0], pos[1] + size[1]];
        const { m41: left, m42: top } = new DOMMatrix(drawn.style.transform);
        return [left, top, left + drawn.offsetWidth, top + drawn.offsetHeight];
    };
    return {
        nodes: graph.nodes.map((node) => [String(node.id), node.title, box(node)]),
        groups: graph.groups.map(({ title, pos, size }) =>
            [title, [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]]]),
    };
}"""


async def faults(comfy, workflow, stand_ins=()):
    """What lies over something else, or out of its group, as the page draws it; `stand_ins` are of other sizes."""
    await comfy.page.evaluate(FIT)
    await comfy.page.wait_for_timeout(700)
    shown = await comfy.page.evaluate(BOXES)
    shown["nodes"] = [each for each in shown["nodes"] if each[0] not in stand_ins]
    found = []
    for number, (_, one, first) in enumerate(shown["nodes"]):
        for _, other, second in shown["nodes"][number + 1 :]:
            if all(min(first[a + 2], second[a + 2]) - max(first[a], second[a]) > 1 for a in (0, 1)):
                found.append(f"{one} {rounded(first)} and {other} {rounded(second)} overlap")
    if comfy.name == "pinned_nodes2":  # which draws nodes elsewhere than their groups, this pack's or not
        return found
    places = {str(node["id"]): node["pos"] for node in workflow["nodes"]}
    for (title, around), group in zip(shown["groups"], workflow["groups"], strict=True):
        left, top, width, height = group["bounding"]
        for key, name, (x, y, right, bottom) in shown["nodes"]:
            at = places[key]
            within = left <= at[0] <= left + width and top <= at[1] <= top + height
            within = within and name != "Preview Any"  # 1.32's Nodes 2.0 makes it as long as its text
            if within and (x < around[0] or y < around[1] or right > around[2] or bottom > around[3]):
                found.append(f"{name} {rounded((x, y, right, bottom))} is out of {title} {rounded(around)}")
    return found


def rounded(box):
    return [round(side) for side in box]


FIT = """() => {
    const { canvas } = window.app;
    const { graph, ds } = canvas;
    const left = Math.min(...graph.nodes.map(({ pos }) => pos[0]));
    const top = Math.min(...graph.nodes.map(({ pos }) => pos[1]));
    const right = Math.max(...graph.nodes.map(({ pos, size }) => pos[0] + size[0]));
    const bottom = Math.max(...graph.nodes.map(({ pos, size }) => pos[1] + size[1]));
    ds.scale = Math.min(1500 / (right - left), 850 / (bottom - top), 1);
    ds.offset = [60 / ds.scale - left, 110 / ds.scale - top];
    canvas.setDirty(true, true);
}"""


@pytest.mark.parametrize("file", [DEMO, *WORKFLOWS], ids=lambda file: file.stem)
async def test_nothing_lies_over_anything(alone, video, file):
    """As it is loaded, and after a run, at the sizes that nodes then have."""
    workflow = json.loads(file.read_text())
    loaded = []
    if alone.name != "pinned_nodes2":
        await alone.drop(workflow)
        loaded = await faults(alone, workflow)
    await alone.drop(runnable(workflow))
    await alone.run()
    stand_ins = {str(node["id"]) for node in workflow["nodes"] if node["type"] == REFERENCE_MODEL and file != DEMO}
    ran = await faults(alone, workflow, stand_ins)
    await alone.screenshot(f"{file.stem}_ran")
    assert (loaded, ran) == ([], [])
