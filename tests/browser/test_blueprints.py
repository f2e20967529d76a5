"""Blocks of the node library: found by the page's search, put into a user's graph, connected and run."""

import io

import pytest
from graph import Graph
from make_subgraphs import BLOCKS
from make_workflows import SAMPLING
from PIL import Image

WITH_AND_WITHOUT, PASS, WORDS = BLOCKS
BLOCK = "window.app.canvas.graph.nodes.find(({ subgraph }) => subgraph)"


@pytest.fixture(autouse=True)
async def no_complaints(comfy):
    comfy.complaints.clear()
    yield
    assert comfy.complaints == []


class UsersGraph(Graph):
    """A model, two prompts, a size, a picture."""

    def __init__(self, definitions):
        super().__init__(definitions)
        loader = self.node("DetailGuidanceReferenceModel", 0)
        self.model, self.clip, self.vae = (loader.out(name) for name in ("MODEL", "CLIP", "VAE"))
        self.positive, self.negative = (
            self.node("CLIPTextEncode", 0, clip=self.clip, text=text).out("CONDITIONING") for text in ("brick wall", "")
        )
        self.latent = self.node("EmptySD3LatentImage", 0, width=128, height=128).out("LATENT")
        self.image = self.node("EmptyImage", 0, width=128, height=128, color=0x804020).out("IMAGE")

    def sampler(self, **others):
        inputs = {"positive": self.positive, "negative": self.negative, "latent_image": self.latent}
        return self.node("KSampler", 2, **inputs | SAMPLING | others)

    def preview(self, samples):
        decoded = self.node("VAEDecode", 2, samples=samples.out("LATENT"), vae=self.vae)
        return self.node("PreviewImage", 2, images=decoded.out("IMAGE"))


@pytest.fixture
async def definitions(comfy):
    return await comfy.server.get("/object_info")


@pytest.fixture
def users(definitions):
    return UsersGraph(definitions)


@pytest.fixture
def by_hand(definitions):
    return UsersGraph(definitions)


async def pictures(comfy, graph, *previews):
    """What a graph without blocks shows."""
    shown = await comfy.server.run(await comfy.server.api_format(graph.saved("by hand")))
    return [pixels(shown[str(preview.saved["id"])]) for preview in previews]


def pixels(png):
    """A picture without what the file says beside it."""
    with Image.open(io.BytesIO(png)) as picture:
        return Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())


async def shown(comfy):
    """Name of what nodes put out in the last run → the first picture of each, in the order of the nodes' ids."""
    (run,) = (await comfy.server.get("/history?max_items=1")).values()
    found = {}
    for node in sorted(run["outputs"]):
        for name, files in run["outputs"][node].items():
            for file in files if name == "images" else [side[0] for side in files]:
                async with comfy.server.session.get("/view", params=file) as answer:
                    found.setdefault(name, []).append(pixels(await answer.read()))
    return found


async def open_graph(comfy, graph):
    """Drop the graph, and bring its first column to the left of the screen."""
    await comfy.drop(graph.saved("user"))
    await comfy.page.evaluate(
        """() => {
            const { canvas } = window.app;
            const [loader] = canvas.graph.nodes;
            canvas.ds.scale = 0.8;
            canvas.ds.offset = [120 - loader.pos[0], 180 - loader.pos[1]];
            canvas.setDirty(true, true);
        }"""
    )
    await comfy.page.wait_for_timeout(500)


async def add_block(comfy, name, typed):
    """A double click on the canvas, right of the first column; what is typed; Enter."""
    place = 0.8 * (120 + 340 + 60), 300
    await comfy.page.mouse.dblclick(*place)
    await comfy.page.wait_for_function("() => document.activeElement.tagName === 'INPUT'", timeout=5000)
    await comfy.page.keyboard.type(typed)
    await comfy.page.wait_for_timeout(1000)
    await comfy.page.keyboard.press("Enter")
    await comfy.page.wait_for_timeout(700)
    if comfy.name.startswith("newest"):  # where the node follows the pointer, and a click puts it down
        await comfy.page.mouse.move(*place)
        await comfy.page.mouse.click(*place)
    await comfy.page.wait_for_function(f"() => {BLOCK}", timeout=5000)
    await comfy.page.wait_for_timeout(500)
    assert await comfy.page.evaluate(f"() => {BLOCK}.title") == name


async def connect(comfy, inputs, outputs=()):
    """
    Args:
        inputs: of the block: name → an output of the user's graph.
        outputs: of the block, each with a node of the user's graph and the name of that one's input.
    """
    await comfy.page.evaluate(
        f"""([inputs, outputs]) => {{
            const block = {BLOCK};
            const node = (id) => block.graph.getNodeById(id);
            const slot = (slots, wanted) => slots.findIndex(({{ name }}) => name === wanted);
            for (const [name, id, output] of inputs) node(id).connect(output, block, slot(block.inputs, name));
            for (const [name, id, input] of outputs)
                block.connect(slot(block.outputs, name), node(id), slot(node(id).inputs, input));
        }}""",
        [
            [(name, node.saved["id"], slot) for name, (node, slot) in inputs.items()],
            [(name, node.saved["id"], socket) for name, node, socket in outputs],
        ],
    )


async def set_widgets(comfy, **values):
    await comfy.page.evaluate(
        f"""values => {{
            for (const widget of {BLOCK}.widgets) if (widget.name in values) widget.value = values[widget.name];
        }}""",
        values,
    )


async def test_from_a_users_own_graph_in_three_actions(comfy, users, by_hand):
    """To with and without side by side: drop the block, connect it, run."""
    await open_graph(comfy, users)
    await add_block(comfy, WITH_AND_WITHOUT, "with and without")
    names = ("model", "positive", "negative", "vae")
    await connect(comfy, {name: getattr(users, name) for name in names} | {"latent_image": users.latent})
    await comfy.run()
    await comfy.page.wait_for_timeout(1000)
    await comfy.screenshot("with_and_without")

    detail = by_hand.node("DetailGuidance", 1, model=by_hand.model)
    previews = [by_hand.preview(by_hand.sampler(model=model)) for model in (by_hand.model, detail.out("MODEL"))]
    ran = await shown(comfy)
    without, with_it = ran["detail_compare"]
    assert [without, with_it] == await pictures(comfy, by_hand, *previews)
    (both,) = ran["images"]
    assert [both.crop((left, 0, left + 128, 128)) for left in (0, 128)] == [without, with_it] and without != with_it

    # What can be seen on the block itself. The newest page puts no other picture on a block than the host's own
    # previews, and those on Nodes 2.0 alone.
    block = await comfy.page.evaluate(f"() => {BLOCK}.id")
    compared = comfy.page.locator(".detail-compare img").locator("visible=true")
    preview = comfy.page.locator(f"[data-node-id='{block}'] img:not(.detail-compare img)")
    seen = {"pinned_classic": (2, 0), "pinned_nodes2": (2, 0), "newest_nodes2": (0, 1), "newest_classic": (0, 0)}
    assert (await compared.count(), await preview.count()) == seen[comfy.name]


async def test_a_detail_pass(comfy, users, by_hand):
    preview = users.node("PreviewImage", 2)
    await open_graph(comfy, users)
    await add_block(comfy, PASS, "detail pass")
    names = ("image", "model", "positive", "negative", "vae")
    await connect(comfy, {name: getattr(users, name) for name in names}, [("image", preview, "images")])
    await comfy.run()
    await comfy.screenshot("detail_pass")

    encoded = by_hand.node("VAEEncode", 1, pixels=by_hand.image, vae=by_hand.vae)
    detail = by_hand.node("DetailGuidance", 1, model=by_hand.model)
    again = by_hand.sampler(model=detail.out("MODEL"), latent_image=encoded.out("LATENT"), denoise=0.4)
    assert (await shown(comfy))["images"] == await pictures(comfy, by_hand, by_hand.preview(again))


async def test_detail_on_words(comfy, users, by_hand):
    sampler = users.sampler()
    users.preview(sampler)
    await open_graph(comfy, users)
    await add_block(comfy, WORDS, "detail on words")
    outputs = [("model", sampler, "model"), ("conditioning", sampler, "positive")]
    await connect(comfy, {"model": users.model, "clip": users.clip}, outputs)
    await set_widgets(comfy, text="brick wall", words="brick")
    await comfy.run()
    await comfy.screenshot("detail_on_words")

    prompt = by_hand.node("PromptWords", 1, clip=by_hand.clip, text="brick wall", words="brick")
    options = by_hand.node("DetailGuidanceOptions", 1, words=prompt.out("words"))
    detail = by_hand.node("DetailGuidance", 1, model=by_hand.model, options=options.out("DG_OPTIONS"))
    guided = by_hand.sampler(model=detail.out("MODEL"), positive=prompt.out("conditioning"))
    assert (await shown(comfy))["images"] == await pictures(comfy, by_hand, by_hand.preview(guided))
