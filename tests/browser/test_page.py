"""The pack on ComfyUI's page, in a real browser: two pages, the classic canvas and Nodes 2.0."""

import io
import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
from comfy_page import GRAPH, ComfyPage
from make_workflows import file_of
from PIL import Image

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
DEMO = Path(__file__).resolve().parents[1] / "reference_model/demo.json"


def demo(steps=4, **inputs):
    """The demo workflow with other values of its Detail Guider."""
    names = ["cfg", "dg_scale", "layer_start", "layer_end", "start_percent", "end_percent"]
    graph = json.loads(DEMO.read_text())
    for node in graph["nodes"]:
        if node["type"] == "DetailGuider":
            values = dict(zip(names, node["widgets_values"], strict=True)) | inputs
            node["widgets_values"] = [values[name] for name in names]
        if node["type"] == "BasicScheduler":
            node["widgets_values"][1] = steps
    return graph


def of_its_own(graph):
    """The workflow by another id, of which no report is kept."""
    return graph | {"id": str(uuid4())}


@pytest.fixture(autouse=True)
async def no_complaints(comfy):
    comfy.complaints.clear()
    yield
    assert comfy.complaints == []


async def test_the_page_opens_without_a_complaint(comfy):
    assert comfy.at_start == []


@pytest.mark.parametrize("file", [DEMO, *WORKFLOWS], ids=lambda file: file.stem)
async def test_every_workflow_loads(comfy, file):
    workflow = json.loads(file.read_text())
    await comfy.drop(workflow)
    unknown = await comfy.page.evaluate(
        "() => window.app.canvas.graph.nodes.map(({ type }) => type)"
        "  .filter((type) => !window.LiteGraph.registered_node_types[type])"
    )
    assert unknown == []
    assert inputs_of(await comfy.prompt()) == inputs_of(await comfy.server.api_format(workflow))
    await comfy.screenshot(file.stem)


async def test_searched_and_added(alone):
    """Double-click, a few letters, Enter: as a user adds a node."""
    for typed, added in {
        "detail guid": "DetailGuidance",
        "detail guider": "DetailGuider",
        "prompt words": "PromptWords",
        "foreground": "DetailForeground",
    }.items():
        await alone.drop({"nodes": [], "links": [], "groups": [], "version": 0.4})
        await alone.page.mouse.dblclick(800, 500)
        await alone.page.locator("input:focus").wait_for()
        await alone.page.keyboard.type(typed, delay=20)
        await alone.page.wait_for_timeout(700)
        await alone.screenshot(f"searched_{added}")
        await alone.page.keyboard.press("Enter")
        await alone.page.wait_for_timeout(700)
        await alone.page.mouse.move(900, 600)
        await alone.page.mouse.click(900, 600)  # the newest page's new node hangs at the pointer until then
        await alone.page.wait_for_timeout(300)
        (node,) = (await alone.saved())["nodes"]
        assert node["type"] == added


def inputs_of(prompt):
    """What a prompt asks of each node, without the page's own: notes, and the box that PreviewAny shows its text in."""
    return {
        key: (node["class_type"], {name: value for name, value in node["inputs"].items() if name != "preview"})
        for key, node in prompt.items()
        if node["class_type"] not in ("MarkdownNote", "Note")
    }


async def test_saved_and_loaded_again_is_the_same(comfy):
    await comfy.drop(demo(dg_scale=1.25, layer_start=0.3, layer_end=0.7))
    await comfy.page.wait_for_timeout(500)  # nodes grow to their content after they are first drawn
    saved = await comfy.saved()
    (guider,) = [node for node in saved["nodes"] if node["type"] == "DetailGuider"]
    later = [True, "w", 1, "positive", "massive channels", ""]  # which the demo was saved before
    assert guider["widgets_values"] == [3, 1.25, 0.3, 0.7, 0, 1, *later], "each at what it was without it"
    await comfy.drop(saved)
    await comfy.page.wait_for_timeout(500)
    again = await comfy.saved()
    if comfy.name == "pinned_nodes2":  # which lays nodes out anew at each loading, this pack's or not
        for node in [*saved["nodes"], *again["nodes"]]:
            node["pos"] = node["size"] = None
    assert again["nodes"] == saved["nodes"] and again["links"] == saved["links"]


async def test_the_handles_are_dragged(comfy):
    await comfy.drop(demo(dg_scale=0.25, layer_start=0.5, layer_end=0.5))
    await comfy.show()
    before = await comfy.values()

    await comfy.drag(comfy.slider("DG scale"), right=60)
    after = await comfy.values()
    assert 0.4 < after["dg_scale"] < 1
    assert {**after, "dg_scale": 0.25} == before, "only the scale moved"
    assert float(await comfy.panel().locator(".number").inner_text()) == after["dg_scale"]

    await comfy.drag(comfy.slider("First layer"), right=-50)
    await comfy.drag(comfy.slider("Last layer"), right=50)
    after = await comfy.values()
    assert 0.2 < after["layer_start"] < 0.4 < 0.6 < after["layer_end"] < 0.8
    width = round(after["layer_end"] - after["layer_start"], 2)

    await comfy.drag(comfy.panel().locator(".between"), right=-400)
    after = await comfy.values()
    assert (after["layer_start"], after["layer_end"]) == (0, width), "both moved, to the left end"
    await comfy.drag(comfy.slider("First layer"), right=400)
    assert (await comfy.values())["layer_start"] == width, "it stops at the other one"

    inputs = (await comfy.prompt())["4"]["inputs"]
    assert {name: inputs[name] for name in after} == await comfy.values(), "what is shown is what is queued"


async def test_a_double_click_resets_the_scale(comfy):
    await comfy.drop(demo(dg_scale=3.0))
    await comfy.show()
    await comfy.slider("DG scale").dblclick()
    assert (await comfy.values())["dg_scale"] == 0.25


@pytest.mark.parametrize("zoom", [0.7, 1.6])
async def test_a_zoomed_canvas(comfy, zoom):
    await comfy.drop(demo(layer_start=0.0, layer_end=0.0))
    await comfy.show(zoom=zoom)
    width = (await comfy.panel().locator(".heat").bounding_box())["width"]
    await comfy.drag(comfy.slider("Last layer"), right=width / 2)
    assert (await comfy.values())["layer_end"] == pytest.approx(0.5, abs=0.02)


async def test_the_keyboard(comfy):
    await comfy.drop(demo(dg_scale=0.25, layer_start=0.5, layer_end=0.5))
    await comfy.show()
    scale, first, last = (comfy.slider(label) for label in ("DG scale", "First layer", "Last layer"))
    places = await comfy.page.evaluate("() => window.app.canvas.graph.nodes.map(({ pos }) => [...pos])")

    await scale.focus()
    await comfy.page.keyboard.press("ArrowRight")
    await comfy.page.keyboard.press("ArrowUp")
    assert (await comfy.values())["dg_scale"] == 0.35
    await comfy.page.keyboard.press("Home")
    assert (await comfy.values())["dg_scale"] == 0
    assert await scale.get_attribute("aria-valuetext") == "off"
    await comfy.page.keyboard.press("PageUp")
    assert (await comfy.values())["dg_scale"] == 0.5

    await comfy.page.keyboard.press("Tab")
    assert await first.evaluate("handle => handle === document.activeElement")
    outline = "handle => getComputedStyle(handle).outlineStyle + getComputedStyle(handle).outlineWidth"
    assert await first.evaluate(outline) == "solid2px", "the focus can be seen"
    await comfy.page.keyboard.press("PageUp")
    after = await comfy.values()
    assert (after["layer_start"], after["layer_end"]) == (0.6, 0.6), "a single layer moves as one"
    await comfy.page.keyboard.press("PageDown")
    await comfy.page.keyboard.press("Delete")
    await comfy.page.keyboard.press("Backspace")
    await comfy.page.keyboard.press("Shift+ArrowLeft")
    await comfy.page.keyboard.press("Tab")
    await comfy.page.keyboard.press("End")
    after = await comfy.values()
    assert (after["layer_start"], after["layer_end"]) == (0.49, 1)
    await last.focus()
    await comfy.page.keyboard.press("Shift+PageDown")
    after = await comfy.values()
    assert (after["layer_start"], after["layer_end"]) == (0.39, 0.9)

    assert await comfy.page.evaluate("() => window.app.canvas.graph.nodes.map(({ pos }) => [...pos])") == places


async def test_assistive_technology_reads_it(comfy):
    await comfy.drop(demo(dg_scale=0.25, layer_start=0.25, layer_end=0.5))
    await comfy.show()
    for label, *limits, words in (
        ("DG scale", "0", "1", "0.25", "0.25"),
        ("First layer", "0", "0.5", "0.25", "0.25 of the depth"),
        ("Last layer", "0.25", "1", "0.5", "0.5 of the depth"),
    ):
        handle = comfy.slider(label)
        assert [await handle.get_attribute(f"aria-value{name}") for name in ("min", "max", "now")] == limits
        assert await handle.get_attribute("aria-valuetext") == words


async def test_one_drag_is_undone_at_once(comfy):
    await comfy.drop(demo(dg_scale=0.25))
    await comfy.show()
    await comfy.drag(comfy.slider("DG scale"), right=50)
    dragged = (await comfy.values())["dg_scale"]
    await comfy.slider("First layer").focus()
    await comfy.page.keyboard.press("ArrowLeft")
    assert ((await comfy.values())["dg_scale"], (await comfy.values())["layer_start"]) == (dragged, 0.69)
    for expected in ((dragged, 0.7), (0.25, 0.7)):
        await comfy.page.keyboard.press("Control+z")
        await comfy.page.wait_for_timeout(700)
        values = await comfy.values()
        assert (values["dg_scale"], values["layer_start"]) == expected
    assert await comfy.panel().locator(".number").inner_text() == "0.25", "the panel follows"
    await comfy.page.keyboard.press("Control+y")
    await comfy.page.wait_for_timeout(700)
    assert (await comfy.values())["dg_scale"] == dragged


async def test_the_panel_follows_the_ordinary_widgets(comfy):
    await comfy.drop(of_its_own(demo()))
    await comfy.show()
    guider = "window.app.canvas.graph.nodes.find(({ type }) => type === 'DetailGuider')"
    await comfy.page.evaluate(f"() => {{ {guider}.widgets.find(({{ name }}) => name === 'layer_end').value = 0.9 }}")
    await comfy.page.wait_for_timeout(200)
    assert await comfy.panel().locator(".words").first.inner_text() == "0.7–0.9 of the depth"
    await comfy.page.evaluate(f"() => {{ {guider}.widgets.find(({{ name }}) => name === 'layer_end').value = 0.1 }}")
    await comfy.page.wait_for_timeout(200)
    assert await comfy.panel().locator(".words").first.inner_text() == "0.7 of the depth", "as it would run"


async def test_one_layer_takes_the_other_along(comfy):
    """Set in the ordinary widgets, as the page does it when its user types a number: what stands there can be run."""
    await comfy.drop(of_its_own(demo(steps=1, layer_start=0.5, layer_end=0.6)))
    await comfy.show()
    typed = """([name, value]) => {
        const { canvas } = window.app;
        const node = canvas.graph.nodes.find(({ type }) => type === 'DetailGuider');
        const widget = node.widgets.find((widget) => widget.name === name);
        widget.value = value;
        widget.callback(value, canvas, node);
    }"""
    for name, value, layers in (
        ("layer_start", 0.55, (0.55, 0.6)),
        ("layer_start", 0.8, (0.8, 0.8)),
        ("layer_end", 0.9, (0.8, 0.9)),
        ("layer_end", 0.4, (0.4, 0.4)),
    ):
        await comfy.page.evaluate(typed, [name, value])
        values = await comfy.values()
        assert (values["layer_start"], values["layer_end"]) == layers
    await comfy.page.wait_for_timeout(200)
    assert await comfy.panel().locator(".words").first.inner_text() == "0.4 of the depth"
    await comfy.run()


@pytest.mark.parametrize("numbers", [["0.5", "0.3", "0.3"], [None, None, None]], ids=["text", "null"])
async def test_numbers_that_were_not_saved_as_numbers(comfy, numbers):
    """The panel goes on, without an error at every frame, and what is dragged is a number again."""
    graph = demo(dg_scale=numbers[0], layer_start=numbers[1], layer_end=numbers[2])
    await comfy.drop(of_its_own(graph))
    await comfy.show()
    await comfy.page.wait_for_timeout(300)
    shown = await comfy.panel().locator(".number").inner_text()
    assert shown == ("off" if numbers[0] is None else "0.5")
    await comfy.slider("DG scale").press("ArrowRight")
    await comfy.slider("First layer").press("ArrowRight")
    values = await comfy.values()
    expected = (0.05, 0.01, 0.01) if numbers[0] is None else (0.55, 0.31, 0.31)
    assert (values["dg_scale"], values["layer_start"], values["layer_end"]) == expected


@pytest.mark.parametrize("mode", [4, 2], ids=["bypassed", "muted"])
async def test_a_guider_that_is_switched_off_by_the_page(comfy, mode):
    """Ctrl+B and Ctrl+M take the guider away from the sampler: the panel says what does what was meant."""
    await comfy.drop(of_its_own(demo()))
    await comfy.show()
    await comfy.page.evaluate(
        "mode => { window.app.canvas.graph.nodes.find(({ type }) => type === 'DetailGuider').mode = mode }", mode
    )
    await comfy.page.wait_for_timeout(300)
    warning = comfy.panel().locator(".warnings")
    assert "Switch enabled off instead" in await warning.inner_text()
    assert await comfy.panel().locator(".number").inner_text() == ("bypassed" if mode == 4 else "muted")
    await comfy.screenshot("bypassed_guider")
    await comfy.page.evaluate(
        "() => { window.app.canvas.graph.nodes.find(({ type }) => type === 'DetailGuider').mode = 0 }"
    )
    await comfy.page.wait_for_timeout(300)
    assert await warning.inner_text() == ""


async def test_a_widget_that_a_link_sets(comfy):
    await comfy.drop(of_its_own(demo()))
    await comfy.show()
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const guider = graph.nodes.find(({ type }) => type === 'DetailGuider');
            const number = window.LiteGraph.createNode('PrimitiveFloat');
            number.pos = [300, 700];
            graph.add(number);
            number.title = 'My number';
            number.widgets[0].value = 0.5;
            for (const linked of ['dg_scale', 'start_percent'])
                number.connect(0, guider, guider.inputs.findIndex(({ name }) => name === linked));
        }"""
    )
    await comfy.page.wait_for_timeout(300)
    scale = comfy.slider("DG scale")
    assert await scale.get_attribute("aria-disabled") == "true"
    assert await comfy.panel().locator(".number").inner_text() == "from My number"
    before = await comfy.values()
    await comfy.drag(scale, right=40)
    await scale.press("ArrowRight")
    assert await comfy.values() == before
    assert isinstance((await comfy.prompt())["4"]["inputs"]["dg_scale"], list)
    assert await comfy.panel().locator(".between").get_attribute("aria-disabled") == "false", "the layers are free"


async def test_the_panel_shows_what_links_have_set(comfy):
    """Before a run nobody knows it; after one it is what ran, not what the widgets hold, and the panel says whence."""
    await comfy.drop(of_its_own(demo(steps=2, dg_scale=0.25, layer_start=0.7, layer_end=0.7)))
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const guider = graph.nodes.find(({ type }) => type === 'DetailGuider');
            for (const [title, value, names] of [
                ['My scale', 0.4, ['dg_scale']], ['My layer', 0.5, ['layer_start', 'layer_end']],
            ]) {
                const number = window.LiteGraph.createNode('PrimitiveFloat');
                number.pos = [300, 700];
                graph.add(number);
                Object.assign(number, { title });
                number.widgets[0].value = value;
                for (const linked of names)
                    number.connect(0, guider, guider.inputs.findIndex(({ name }) => name === linked));
            }
        }"""
    )
    await comfy.show()
    layers, number = comfy.panel().locator(".words").first, comfy.panel().locator(".number")
    scale, first, last = (comfy.slider(label) for label in ("DG scale", "First layer", "Last layer"))
    assert await layers.inner_text() == "from My layer" and await number.inner_text() == "from My scale"
    assert await comfy.panel().locator(".bracket").locator("visible=true").count() == 0, "where, nobody knows"

    await comfy.run()
    assert await layers.inner_text() == "last run: block 5 of 10 (double 5) · from My layer"
    assert await number.inner_text() == "last run: 0.4 · from My scale"
    for handle, value in ((scale, "0.4"), (first, "0.5"), (last, "0.5")):
        assert await handle.get_attribute("aria-disabled") == "true"
        assert await handle.get_attribute("aria-valuenow") == value
    assert float(await scale.get_attribute("data-place")) == pytest.approx(0.4**0.5)
    assert [await handle.get_attribute("data-place") for handle in (first, last)] == ["0.5", "0.6"]
    assert (await comfy.panel().locator(".faint").inner_text()).startswith("strength"), "it is of these values"
    values = await comfy.values()
    await comfy.drag(scale, right=40)
    await comfy.drag(comfy.panel().locator(".between"), right=40)
    await first.press("ArrowRight")
    assert await comfy.values() == values, "read-only"
    await comfy.screenshot("linked")


async def test_copies_have_panels_of_their_own(comfy):
    await comfy.drop(demo(dg_scale=0.5))
    await comfy.show()
    await comfy.page.evaluate(
        """() => {
            const { canvas } = window.app;
            const guider = canvas.graph.nodes.find(({ type }) => type === 'DetailGuider');
            canvas.deselectAll?.();
            canvas.select ? canvas.select(guider) : canvas.selectNode(guider);
            canvas.copyToClipboard();
            canvas.pasteFromClipboard();
        }"""
    )
    await comfy.page.wait_for_timeout(500)
    await comfy.page.evaluate(
        """() => {
            const copy = window.app.canvas.graph.nodes.find(({ type, id }) => type === 'DetailGuider' && id != 4);
            copy.mode = 4;
            copy.pos = [5000, 5000];
        }"""
    )
    await comfy.show()
    handles = await comfy.page.get_by_role("slider", name="DG scale").locator("visible=true").all()
    in_view = [handle for handle in handles if 0 < (await handle.bounding_box())["x"] < 1600]
    await comfy.drag(in_view[0], right=40)
    scales = await comfy.page.evaluate(
        "() => window.app.canvas.graph.nodes.filter(({ type }) => type === 'DetailGuider')"
        "  .sort((one, other) => one.mode - other.mode)"
        "  .map(({ widgets }) => widgets.find(({ name }) => name === 'dg_scale').value)"
    )
    assert scales[0] > 0.5 and scales[1] == 0.5
    await comfy.screenshot("copies")
    await comfy.show(bypassed=True)
    numbers = await comfy.page.locator(".detail-guidance .number").all_inner_texts()
    assert sorted(numbers) == sorted([f"{scales[0]:g}", "bypassed"])
    assert (await comfy.prompt()).keys() == {str(number) for number in range(1, 12)}, "bypassed: not queued"


async def test_a_run_from_the_page(comfy):
    """The picture appears, and the node shows what happened, also after undo and after a look at another workflow."""
    await comfy.drop(demo())
    await comfy.show()
    await comfy.screenshot("before_a_run")
    await comfy.run()
    layers, happened = comfy.panel().locator(".words").all(), comfy.panel().locator(".faint")
    assert await (await layers)[0].inner_text() == "block 7 of 10 (double 7)"
    assert re.fullmatch(r"strength 0\.\d+ \((weak|usual)\) · channel 50 · 4/4 steps", await happened.inner_text())
    warmths = (
        await comfy.panel()
        .locator(".cell")
        .evaluate_all("cells => cells.map((cell) => Number(cell.style.getPropertyValue('--warmth')))")
    )
    assert len(warmths) == 10 and max(warmths) == 1 and warmths[0] < min(warmths[1:]), "block 0 has no massive channel"
    await comfy.screenshot("after_a_run")
    saved = await comfy.saved()
    assert any(node["type"] == "SaveImage" for node in saved["nodes"])
    outputs = await comfy.page.evaluate(
        "() => Object.values(window.app.nodeOutputs).flatMap(({ images }) => images ?? [])"
    )
    # The newest page keeps what a loader of an earlier workflow has shown.
    assert [image["type"] for image in outputs if image["type"] != "input"] == ["output"], "the picture is on the page"

    await comfy.slider("First layer").press("ArrowLeft")
    values = await comfy.values()
    assert values["layer_start"] == 0.65, "now by blocks: 0.65 names block 6 of 10"
    assert (await happened.inner_text()).startswith("last run: strength")
    assert await comfy.panel().locator(".said.stale").count() == 1
    await comfy.screenshot("after_a_change")
    await comfy.page.keyboard.press("Control+z")
    await comfy.page.wait_for_timeout(700)
    assert (await happened.inner_text()).startswith("strength") and "4/4 steps" in await happened.inner_text()


async def test_a_reloaded_page_shows_the_last_run(comfy):
    await comfy.drop(demo(steps=2))
    await comfy.show()
    await comfy.run()
    before = await comfy.panel().locator(".faint").inner_text()
    workflow = await comfy.page.evaluate("() => (window.app.rootGraph ?? window.app.graph).id")
    await comfy.page.wait_for_timeout(1000)  # the page keeps its workflow now and then
    await comfy.page.reload()
    await comfy.page.wait_for_function(
        "id => (window.app?.rootGraph ?? window.app?.graph)?.id === id && document.querySelector('.detail-guidance')",
        arg=workflow,
    )
    await comfy.page.wait_for_timeout(1000)
    await comfy.close_dialogs()
    await comfy.show()
    assert before.startswith("strength") and await comfy.panel().locator(".faint").inner_text() == before
    await comfy.screenshot("reloaded")


async def test_off_keeps_the_values_and_says_off(comfy):
    """With and without in one click, through the real server."""
    await comfy.drop(demo(steps=2))
    await comfy.show()
    await comfy.run()
    happened, number = comfy.panel().locator(".faint"), comfy.panel().locator(".number")
    before = await comfy.values()
    guider = "window.app.canvas.graph.nodes.find(({ type }) => type === 'DetailGuider')"
    for enabled, word in ((False, "off"), (True, "0.25")):
        await comfy.page.evaluate(
            f"() => {{ {guider}.widgets.find(({{ name }}) => name === 'enabled').value = {json.dumps(enabled)} }}"
        )
        await comfy.page.wait_for_timeout(200)
        assert await number.inner_text() == word
        assert await comfy.values() == {**before, "enabled": enabled}
        assert (await happened.inner_text()).startswith("off · last run: strength") is not enabled
        assert await comfy.panel().locator(".said.stale").count() == (not enabled)
        assert (await comfy.prompt())["4"]["inputs"]["enabled"] is enabled
        if not enabled:
            await comfy.screenshot("off")
            await comfy.run()
            assert "last run" in await happened.inner_text(), "a run without it has nothing to report"


async def test_the_panel_counts_computed_steps(comfy):
    await comfy.drop(demo())
    await comfy.page.evaluate(
        """() => {
            const options = window.LiteGraph.createNode("DetailGuidanceOptions");
            window.app.canvas.graph.add(options);
            options.widgets.find(({ name }) => name === "every").value = 3;
            const guider = window.app.canvas.graph.nodes.find(({ type }) => type === "DetailGuider");
            options.connect(0, guider, "options");
        }"""
    )
    await comfy.show()
    await comfy.run()
    happened = await comfy.panel().locator(".faint").inner_text()
    assert happened.endswith(" · channel 50 · 4/4 steps, 2 computed")
    await comfy.screenshot("reuse")


async def test_bypass_shows_on_the_panel(comfy):
    await comfy.drop(demo(steps=1))
    await comfy.show()
    await comfy.run()
    guider = "window.app.canvas.graph.nodes.find(({ type }) => type === 'DetailGuider')"
    for mode, word in ((4, "bypassed"), (0, "0.25")):
        await comfy.page.evaluate(f"() => {{ {guider}.mode = {mode}; window.app.canvas.setDirty(true, true); }}")
        await comfy.page.wait_for_timeout(200)
        assert await comfy.panel().locator(".number").inner_text() == word
        happened = await comfy.panel().locator(".faint").inner_text()
        assert happened.startswith("bypassed · last run: strength") is (mode == 4)
        await comfy.screenshot(word)


async def test_a_calibration_is_offered_and_taken_over(comfy):
    """Calibrated from the page without reference pictures, the panel has a note. A preset that such have judged can be
    used with one click, which one undo takes back."""
    await comfy.drop(demo(steps=2))
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const add = (type, values, x) => {
                const node = window.LiteGraph.createNode(type);
                node.pos = [x, 900];
                graph.add(node);
                for (const [name, value] of Object.entries(values))
                    node.widgets.find((widget) => widget.name === name).value = value;
                return node;
            };
            const loader = graph.nodes.find(({ type }) => type === "DetailGuidanceReferenceModel");
            const guider = graph.nodes.find(({ type }) => type === "DetailGuider");
            const text = graph.nodes.find(({ type }) => type === "CLIPTextEncode");
            const latent = add("EmptySD3LatentImage", { width: 128, height: 128 }, 0);
            const tried = { steps: 2, layers: "0.4", scales: "0.05", start_percent: 0.5 };
            const node = add("DetailGuidanceCalibrate", tried, 400);
            const shown = add("PreviewAny", {}, 900);
            const seen = add("PreviewImage", {}, 1300);
            loader.connect(0, node, "model");
            loader.connect(2, node, "vae");
            for (const name of ["positive", "negative"]) text.connect(0, node, name);
            latent.connect(0, node, "latent_image");
            node.connect(4, shown, "source");
            node.connect(2, seen, "images");
        }"""
    )
    assert (await comfy.values("DetailGuidanceCalibrate"))["control_after_generate"] == "fixed"
    await comfy.show()
    await comfy.run()
    use = comfy.panel().get_by_role("button", name="use")
    note = "not judged: layout kept up to block 4, 0.05 from 50 % (cfg 4)"
    assert await comfy.panel().locator(".preset").inner_text() == note, "and nothing to click"
    assert "keep their layout" in await comfy.panel().locator(".preset .words").get_attribute("title")
    shown = await comfy.page.evaluate(
        "() => window.app.canvas.graph.nodes.find(({ type }) => type === 'PreviewAny')"
        "  .widgets.map(({ value }) => String(value))"
    )
    assert any("At layer 0.4 pictures keep their layout" in value for value in shown), "the report, on its node"
    await comfy.screenshot("calibrated")
    (file,) = (Path(comfy.server.folder.name) / "default/detail_guidance").glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"verdict": "helps", "why": "It helps."}))
    await comfy.page.evaluate("() => window.comfyAPI.api.api.dispatchEvent(new CustomEvent('reconnected'))")
    await use.wait_for()
    assert (await comfy.panel().locator(".preset").inner_text()).startswith("best at cfg 4: block 4, 0.05 from 50 %")
    count_in = f"""(what) => {GRAPH}.nodes.find(({{ type }}) => type === "DetailGuider")
        .widgets.find(({{ name }}) => name === "scale_is").value = what"""
    await comfy.page.evaluate(count_in, "strength")
    await comfy.page.wait_for_timeout(300)
    assert await use.is_disabled(), "its scale is a w"
    assert "With scale_is w" in await comfy.panel().locator(".preset .words").get_attribute("title")
    await comfy.page.evaluate(count_in, "w")
    await comfy.page.wait_for_timeout(300)
    await use.click()
    values = await comfy.values()
    assert (values["layer_start"], values["layer_end"], values["dg_scale"]) == (0.4, 0.4, 0.05)
    assert (values["start_percent"], values["end_percent"]) == (0.5, 1)
    await comfy.page.wait_for_timeout(300)
    assert await use.is_hidden(), "it is in use"
    await comfy.page.keyboard.press("Control+z")
    await comfy.page.wait_for_timeout(700)
    values = await comfy.values()
    assert (values["dg_scale"], values["start_percent"]) == (0.25, 0) and await comfy.panel().locator(
        ".use"
    ).is_visible()


async def test_two_pictures_in_one_place(comfy):
    await comfy.drop(demo(steps=1))
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const decoded = graph.nodes.find(({ type }) => type === "VAEDecode");
            const inverted = window.LiteGraph.createNode("ImageInvert");
            const compare = window.LiteGraph.createNode("DetailCompare");
            for (const [node, x] of [[inverted, 1800], [compare, 2200]]) { node.pos = [x, 100]; graph.add(node); }
            compare.size = [320, 380];
            decoded.connect(0, inverted, 0);
            decoded.connect(0, compare, "images");
            inverted.connect(0, compare, "reference");
            window.app.canvas.ds.scale = 1;
            window.app.canvas.ds.offset = [-1800, 200];
            window.app.canvas.setDirty(true, true);
        }"""
    )
    await comfy.run()
    comparer = comfy.page.locator(".detail-compare")
    await comfy.page.wait_for_function(  # the run is over before the page has fetched its pictures
        """() => {
            const pictures = [...document.querySelectorAll(".detail-compare img")];
            const loaded = ({ complete, naturalWidth }) => complete && naturalWidth === 128;
            return pictures.length === 2 && pictures.every(loaded);
        }"""
    )
    box = await comparer.locator(".pair").bounding_box()
    await comfy.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    divider = comparer.get_by_role("slider", name="Divider")
    assert int(await divider.input_value()) == pytest.approx(25, abs=2)
    await comfy.screenshot("compare")
    await divider.focus()
    await comfy.page.keyboard.press("ArrowRight")
    assert int(await divider.input_value()) == pytest.approx(26, abs=2)
    assert await comparer.locator(".label").all_inner_texts() == ["reference", "images"]
    assert await comparer.get_by_role("button").locator("visible=true").count() == 0, "one pair"
    width = "image => image.getBoundingClientRect().width"
    fitted = await comparer.locator("img.left").evaluate(width)
    await comparer.locator(".pair").dblclick()
    assert await comparer.locator("img.left").evaluate(width) == 128 != fitted
    await comparer.locator(".pair").press("Enter")
    assert await comparer.locator("img.left").evaluate(width) == fitted
    await comfy.show()
    await comfy.slider("DG scale").press("ArrowRight")
    await comfy.page.keyboard.press("Control+z")
    await comfy.page.wait_for_timeout(1000)
    assert (await comfy.values())["dg_scale"] == 0.25
    assert await comfy.page.locator(".detail-compare img").count() == 2, "undo makes all nodes anew"


async def test_a_batch_is_compared_one_by_one(comfy):
    """Each pair as large as a single one, by buttons and by keys; the sides are called as the inputs are."""
    graph = demo(steps=1)
    for node in graph["nodes"]:
        if node["type"] == "EmptySD3LatentImage":
            node["widgets_values"] = [128, 128, 3]
    await comfy.drop(graph)
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const decoded = graph.nodes.find(({ type }) => type === "VAEDecode");
            const compare = window.LiteGraph.createNode("DetailCompare");
            compare.pos = [1800, 100];
            compare.size = [400, 460];
            graph.add(compare);
            for (const input of ["images", "reference"]) decoded.connect(0, compare, input);
            compare.inputs.find(({ name }) => name === "reference").label = "without";
        }"""
    )
    await comfy.show(node_type="DetailCompare")
    await comfy.run()
    comparer = comfy.page.locator(".detail-compare")
    addresses = set()
    for number in (1, 2, 3):
        await comparer.get_by_text(f"{number} of 3").wait_for()
        assert await comparer.locator("img").count() == 2, "one pair at a time"
        assert (await comparer.locator(".pair").bounding_box())["height"] > 250
        addresses.add(await comparer.locator("img.right").get_attribute("src"))
        if number == 1:
            await comparer.get_by_role("button", name="Next picture").click()
        if number == 2:
            await comparer.locator(".pair").press("PageDown")
    assert len(addresses) == 3
    assert await comparer.get_by_role("button", name="Next picture").is_disabled()
    assert await comparer.locator(".label").all_inner_texts() == ["without", "images"]
    await comfy.page.wait_for_timeout(500)
    await comfy.screenshot("compare_a_batch")
    await comfy.show(node_type="DetailCompare", zoom=0.3)
    await comfy.page.wait_for_timeout(500)
    assert await comparer.locator("img.right").is_visible(), "from afar, too"
    await comfy.show(node_type="DetailCompare")
    place = (await comfy.saved())["nodes"][-1]["pos"]
    await comparer.locator(".pair").press("ArrowLeft")
    await comparer.locator(".pair").press("PageUp")
    await comparer.get_by_text("2 of 3").wait_for()
    assert int(await comparer.get_by_role("slider").input_value()) < 100
    assert (await comfy.saved())["nodes"][-1]["pos"] == place, "keys do not move the node"


async def test_the_saved_picture_says_what_was_done(comfy):
    await comfy.drop(demo(steps=2, dg_scale=0.35))  # the host keeps what other tests have sampled
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const find = (wanted) => graph.nodes.find(({ type }) => type === wanted);
            const [report, shown] = ["DetailGuidanceReport", "PreviewAny"].map((type) => {
                const node = window.LiteGraph.createNode(type);
                node.pos = [0, 900];
                graph.add(node);
                return node;
            });
            find("SamplerCustomAdvanced").connect(0, report, "latent");
            report.connect(0, find("VAEDecode"), "samples");
            report.connect(1, shown, "source");
        }"""
    )
    await comfy.run()
    outputs = await comfy.page.evaluate(
        """() => window.app.canvas.graph.nodes.filter(({ type }) => type === "PreviewAny" || type === "SaveImage")
            .map(({ id }) => window.app.nodeOutputs[id])"""
    )
    (text,) = [output["text"][0] for output in outputs if "text" in output]
    assert text.startswith("Detail Guidance: SD3 / SD3.5, block 7 of 10, massive channels 50, 2 of 2 steps")
    (image,) = [image for output in outputs for image in output.get("images", [])]
    async with comfy.server.session.get("/view", params=image) as answer:
        saved = Image.open(io.BytesIO(await answer.read())).text
    (told,) = json.loads(saved["detail_guidance"])
    assert told["channels"] == {"7": [50]} and told["made_with"]["dg_scale"] == 0.35
    assert told["relative_strength"] > 0 and "workflow" in saved


async def test_a_saved_profile_says_where(comfy):
    await comfy.drop(demo(steps=1))
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const find = (wanted) => graph.nodes.find(({ type }) => type === wanted);
            const add = (type) => {
                const node = window.LiteGraph.createNode(type);
                node.pos = [0, 900];
                graph.add(node);
                return node;
            };
            const [latent, probe, save] = ["EmptySD3LatentImage", "MassiveActivationProbe",
                "SaveMassiveActivationProfile"].map(add);
            find("DetailGuidanceReferenceModel").connect(0, probe, "model");
            for (const name of ["positive", "negative"]) find("CLIPTextEncode").connect(0, probe, name);
            latent.widgets[0].value = latent.widgets[1].value = 128;
            latent.connect(0, probe, "latent_image");
            probe.widgets.find(({ name }) => name === "steps").value = 1;
            probe.connect(0, save, "profile");
        }"""
    )
    probe = await comfy.values("MassiveActivationProbe")
    assert probe["control_after_generate"] == "fixed", "another seed would measure it all again"
    await comfy.run()
    said = comfy.page.get_by_text(re.compile(r"massive_activations.profile_\d+_\.safetensors"))
    await said.first.wait_for()
    await comfy.screenshot("saved_profile")


async def test_parts_of_pictures_are_shown(comfy):
    """The workflow as it is offered, on the reference model: every picture that it promises is on its node."""
    graph = json.loads(file_of("parts").read_text())
    smaller = {"CLIPTextEncode": lambda old: [old[0] and "grass 1"], "EmptySD3LatentImage": lambda old: [128, 128, 2]}
    smaller["KSampler"] = lambda old: [old[0], old[1], 4, *old[3:]]
    for node in graph["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node.update(type="DetailGuidanceReferenceModel", widgets_values=[], properties={})
        node["widgets_values"] = smaller.get(node["type"], list)(node["widgets_values"])
    await comfy.drop(graph)
    assert (await comfy.values("DiTFeatures"))["control_after_generate"] == "fixed", (
        "another seed would do it all again"
    )
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const save = window.LiteGraph.createNode("SaveDiTFeatures");
            graph.add(save);
            graph.nodes.find(({ type }) => type === "DiTFeatures").connect(0, save, "features");
        }"""
    )
    await comfy.run()
    await comfy.page.get_by_text(re.compile(r"dit_features.\w+_\d+_\.safetensors")).first.wait_for()
    shown = await comfy.page.evaluate(
        "() => window.app.canvas.graph.nodes.filter(({ type }) => ['PreviewImage', 'MaskPreview'].includes(type))"
        "  .map(({ id, title }) => [title, (window.app.nodeOutputs[id]?.images ?? []).length])"
    )
    assert dict(shown) == {"Pictures": 2, "Components": 2, "Parts": 2, "A mask for each part": 8}
    await comfy.screenshot("parts_run")


async def test_the_panel_shows_where_detail_went(comfy):
    """The workflow as it is offered, on the reference model of objects."""
    graph = json.loads(file_of("words").read_text())
    smaller = {
        "CLIPTextEncode": lambda old: [""],
        "PromptWords": lambda old: ["bear wood planks", "bear", *old[2:]],
        "EmptySD3LatentImage": lambda old: [128, 128, 1],
        "KSampler": lambda old: [old[0], old[1], 8, *old[3:]],
        "DetailGuidance": lambda old: [0.25, *old[1:]],
    }
    for node in graph["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node.update(type="DetailGuidanceReferenceModel", widgets_values=[True], properties={})
        node["widgets_values"] = smaller.get(node["type"], list)(node["widgets_values"])
    await comfy.drop(graph)
    await comfy.show(node_type="DetailGuidance")
    mask = comfy.panel().locator(".mask")
    assert await mask.is_hidden(), "before a run there is none"
    before = await comfy.panel().bounding_box()
    await comfy.run()
    covered = await comfy.panel().locator(".where").inner_text()
    assert re.fullmatch(r"where: bear \d+ %", covered) and await mask.get_attribute("title") == covered
    assert await comfy.panel().bounding_box() == before, "the node does not grow"
    greys = await mask.evaluate(
        "mask => [...mask.getContext('2d').getImageData(0, 0, mask.width, mask.height).data]"
        "  .filter((_, number) => number % 4 === 0)"
    )
    assert len(greys) == 16 * 16 and min(greys) < 64 and max(greys) > 191, "a part of the picture"
    assert await mask.is_visible()
    await comfy.screenshot("words_run")


async def test_a_warning_is_on_the_node(comfy):
    graph = demo(steps=2, layer_start=0.0, layer_end=0.0)
    await comfy.drop(graph)
    await comfy.show()
    size = (await comfy.saved())["nodes"][3]["size"]
    await comfy.run()
    warning = comfy.panel().locator(".warnings")
    assert (await warning.inner_text()).startswith("no massive channel at block 0")
    assert (await comfy.saved())["nodes"][3]["size"] == size, "a node that grew would have to be undone"
    await comfy.screenshot("warning")
    assert await cut(warning) == 0, "the remedy is what must be seen"


async def cut(element):
    """How many pixels of an element its box, which scrolls, does not show."""
    return await element.evaluate(
        """element => {
            const box = element.closest(".said").getBoundingClientRect();
            const { top, bottom } = element.getBoundingClientRect();
            return Math.max(0, Math.round(box.top - top), Math.round(bottom - box.bottom));
        }"""
    )


async def test_a_new_node_has_room_for_a_warning(comfy):
    """As it is added from the page's list."""
    await comfy.drop(demo(steps=2))
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const find = (wanted) => graph.nodes.find(({ type }) => type === wanted);
            const node = window.LiteGraph.createNode("DetailGuidance");
            node.pos = [400, 900];
            graph.add(node);
            for (const name of ["layer_start", "layer_end"])
                node.widgets.find((widget) => widget.name === name).value = 0;
            find("DetailGuidanceReferenceModel").connect(0, node, "model");
            find("DetailGuider").widgets.find(({ name }) => name === "enabled").value = false;
            node.connect(0, find("DetailGuider"), "model");
        }"""
    )
    await comfy.show(node_type="DetailGuidance")
    await comfy.run()
    panel = comfy.page.get_by_role("group", name="Detail Guidance, Detail Guidance", exact=True)
    warning = panel.locator(".warnings", has_text="no massive channel at block 0")
    await comfy.screenshot("warning_on_a_new_node")
    assert await cut(warning) == 0


async def test_a_warning_on_a_small_node_is_scrolled(comfy):
    graph = demo(steps=2, layer_start=0.0, layer_end=0.0)
    (guider,) = [node for node in graph["nodes"] if node["type"] == "DetailGuider"]
    guider["size"] = [guider["size"][0], 100]  # the page makes it as large as it must be
    await comfy.drop(graph)
    await comfy.show()
    await comfy.run()
    scrolled = comfy.panel().locator(".said")
    await comfy.page.evaluate("() => { window.scale = window.app.canvas.ds.scale; }")
    await scrolled.click(position={"x": 20, "y": 40})  # a preset's button may be in its middle
    await comfy.page.mouse.wheel(0, 60)
    await comfy.page.wait_for_timeout(300)
    assert await scrolled.evaluate("said => said.scrollTop") > 0, "a long one can be read by scrolling"
    assert await comfy.page.evaluate("() => window.app.canvas.ds.scale === window.scale")


@pytest.mark.parametrize(
    "inputs, warning",
    [
        ({"dg_scale": 20.0}, "the added detail is "),
        ({"start_percent": 0.6, "end_percent": 0.6}, "no step lies between start_percent 0.6 and end_percent 0.6"),
    ],
)
async def test_other_warnings(comfy, inputs, warning):
    await comfy.drop(demo(steps=2, **inputs))
    await comfy.show()
    await comfy.run()
    assert (await comfy.panel().locator(".warnings").inner_text()).startswith(warning)


async def test_two_nodes_on_one_model(comfy):
    await comfy.drop(demo(steps=1))
    await comfy.page.evaluate(
        """() => {
            const { graph } = window.app.canvas;
            const find = (wanted) => graph.nodes.find(({ type }) => type === wanted);
            const earlier = window.LiteGraph.createNode("DetailGuidance");
            earlier.pos = [0, 900];
            graph.add(earlier);
            find("DetailGuidanceReferenceModel").connect(0, earlier, "model");
            earlier.connect(0, find("DetailGuider"), "model");
        }"""
    )
    await comfy.show()
    await comfy.run()
    said = await comfy.page.locator(".detail-guidance .warnings").all_inner_texts()
    assert any(each.startswith("this model already carries one") for each in said)


async def test_the_pages_language(comfy):
    """Which locale it is, the pack asks as it starts; here it is told so."""
    await comfy.drop(demo(steps=1))
    await comfy.show()
    await comfy.run()
    speak = "async (locale) => (await import('/extensions/comfyui-detail-guidance/words.js')).speak(locale)"
    try:
        await comfy.page.evaluate(speak, "ja")
        await comfy.slider("DG scale").press("Home")
        assert await comfy.panel().locator(".number").inner_text() == "オフ"
        assert (await comfy.panel().locator(".faint").inner_text()).startswith("オフ · 前回の実行：強度 0.")
        await comfy.screenshot("japanese")
    finally:
        await comfy.page.evaluate(speak, "en")


async def test_handles_after_a_run_leave_what_can_be_run(comfy):
    """Two fractions of one block: dragging within it must not put the first behind the last."""
    await comfy.drop(demo(steps=1, layer_start=0.7, layer_end=0.7))
    await comfy.show()
    await comfy.run()
    await comfy.drag(comfy.slider("Last layer"), right=-15)
    await comfy.slider("First layer").press("Shift+ArrowRight")
    values = await comfy.values()
    assert values["layer_start"] == values["layer_end"] == 0.7
    await comfy.run()


async def test_each_workflow_has_its_own_report(comfy):
    """The host keeps the guider's output from the first one's run; the second one's report is its own all the same."""
    for number, seed in enumerate((11, 12), start=1):
        workflow = demo(steps=number)
        workflow["id"] = f"00000000-0000-4000-8000-00000000000{number}"
        for node in workflow["nodes"]:
            if node["type"] == "RandomNoise":
                node["widgets_values"][0] = seed
        await comfy.drop(workflow)
        await comfy.show()
        await comfy.run()
        assert f"· {number}/{number} steps" in await comfy.panel().locator(".faint").inner_text()


async def test_a_node_deleted_while_its_handle_is_dragged(comfy):
    await comfy.drop(demo(dg_scale=0.25))
    await comfy.show()
    box = await comfy.slider("DG scale").bounding_box()
    await comfy.page.mouse.move(box["x"] + 5, box["y"] + 5)
    await comfy.page.mouse.down()
    await comfy.page.mouse.move(box["x"] + 50, box["y"] + 5)
    await comfy.page.evaluate(
        "() => { const { graph } = window.app.canvas; graph.remove(graph.nodes.find(({ id }) => id == 4)) }"
    )
    await comfy.page.mouse.up()
    pending = "() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.changeCount"
    assert await comfy.page.evaluate(pending) == 0, "undo works on"


async def test_a_held_key_is_undone_at_once(comfy):
    await comfy.drop(demo(dg_scale=0.25))
    await comfy.show()
    await comfy.slider("DG scale").focus()
    undo = "() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length"
    before = await comfy.page.evaluate(undo)
    for _ in range(10):
        await comfy.page.keyboard.down("ArrowRight")
    await comfy.page.keyboard.up("ArrowRight")
    assert (await comfy.values())["dg_scale"] == 0.75
    assert await comfy.page.evaluate(undo) - before <= 2


async def test_the_canvas_is_moved_and_zoomed_over_the_panel(comfy):
    await comfy.drop(demo())
    await comfy.show()
    state = "() => { const { scale, offset } = window.app.canvas.ds; return [scale, offset[0]]; }"
    scale, left = await comfy.page.evaluate(state)
    box = await comfy.panel().locator(".name").bounding_box()
    x, y = box["x"] + 5, box["y"] + 5
    await comfy.page.mouse.move(x, y)
    await comfy.page.mouse.down(button="middle")
    await comfy.page.mouse.move(x + 30, y)
    await comfy.page.mouse.move(x + 60, y)
    await comfy.page.mouse.up(button="middle")
    await comfy.page.wait_for_timeout(300)
    assert (await comfy.page.evaluate(state))[1] - left == pytest.approx(60, abs=15)
    await comfy.page.mouse.wheel(0, -100)
    await comfy.page.wait_for_timeout(300)
    assert (await comfy.page.evaluate(state))[0] > scale


async def test_the_track_is_clicked(comfy):
    await comfy.drop(demo(dg_scale=0.6))
    await comfy.show()
    track = comfy.panel().locator(".track")
    box = await track.bounding_box()
    await comfy.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert (await comfy.values())["dg_scale"] == pytest.approx(0.25, abs=0.02)


async def test_a_scale_beyond_the_track(comfy):
    """The ordinary widget goes further; the panel shows it, and takes it back only when it is told to."""
    await comfy.drop(demo(dg_scale=3.0))
    await comfy.show()
    scale = comfy.slider("DG scale")
    assert await comfy.panel().locator(".number").inner_text() == "3"
    assert await scale.get_attribute("data-place") == "1" and await scale.get_attribute("aria-valuemax") == "3"
    await scale.press("ArrowRight")
    assert (await comfy.values())["dg_scale"] == 3
    await scale.press("ArrowLeft")
    assert (await comfy.values())["dg_scale"] == 2.95


async def test_a_run_inside_a_subgraph(comfy):
    await comfy.drop(demo(steps=2))
    await comfy.page.evaluate(
        """() => {
            const { canvas } = window.app;
            const guider = canvas.graph.nodes.find(({ type }) => type === 'DetailGuider');
            window.outer = canvas.graph.convertToSubgraph(new Set([guider])).node;
        }"""
    )
    await comfy.run()
    await comfy.page.evaluate("() => window.app.canvas.openSubgraph(window.outer.subgraph, window.outer)")
    await comfy.page.wait_for_timeout(700)
    assert "2/2 steps" in await comfy.panel().locator(".faint").inner_text()
    await comfy.screenshot("subgraph")


async def test_two_pictures_inside_a_subgraph(comfy):
    await comfy.drop(demo(steps=1))
    await comfy.page.evaluate(
        """() => {
            const { canvas } = window.app;
            const decoded = canvas.graph.nodes.find(({ type }) => type === "VAEDecode");
            const compare = window.LiteGraph.createNode("DetailCompare");
            canvas.graph.add(compare);
            for (const input of ["images", "reference"]) decoded.connect(0, compare, input);
            canvas.graph.convertToSubgraph(new Set([compare]));
        }"""
    )
    await comfy.run()
    await comfy.show()
    await comfy.slider("DG scale").press("ArrowRight")
    await comfy.page.keyboard.press("Control+z")
    await comfy.page.wait_for_timeout(1000)
    assert (await comfy.values())["dg_scale"] == 0.25, "undo makes all nodes anew"
    await comfy.page.evaluate(
        """() => {
            const { canvas } = window.app;
            const outer = canvas.graph.nodes.find(({ subgraph }) => subgraph);
            canvas.openSubgraph(outer.subgraph, outer);
            const [compare] = outer.subgraph.nodes;
            canvas.ds.scale = 1;
            canvas.ds.offset = [300 - compare.pos[0], 300 - compare.pos[1]];
            canvas.setDirty(true, true);
        }"""
    )
    await comfy.page.wait_for_timeout(700)
    assert await comfy.page.locator(".detail-compare img").count() == 2
    await comfy.screenshot("compare_in_a_subgraph")


async def test_a_widget_promoted_to_a_subgraph(comfy):
    await comfy.drop(of_its_own(demo(dg_scale=0.5)))
    await comfy.page.evaluate(
        """() => {
            const { canvas } = window.app;
            const guider = canvas.graph.nodes.find(({ type }) => type === 'DetailGuider');
            const { node, subgraph } = canvas.graph.convertToSubgraph(new Set([guider]));
            window.outer = node;
            const inner = subgraph.nodes.find(({ type }) => type === 'DetailGuider');
            const slot = inner.inputs.find(({ name }) => name === 'dg_scale');
            subgraph.addInput('dg_scale', 'FLOAT').connect(slot, inner);
        }"""
    )
    await comfy.page.wait_for_timeout(300)
    promoted = "window.outer.widgets.find(({ name }) => name === 'dg_scale')"
    assert await comfy.page.evaluate(f"() => {promoted}.value") == 0.5
    await comfy.page.evaluate(f"() => {{ {promoted}.value = 1.5 }}")
    queued = [node for node in (await comfy.prompt()).values() if node["class_type"] == "DetailGuider"]
    assert [node["inputs"]["dg_scale"] for node in queued] == [1.5]
    await comfy.page.evaluate("() => window.app.canvas.openSubgraph(window.outer.subgraph, window.outer)")
    await comfy.page.wait_for_timeout(700)
    await comfy.show()
    await comfy.screenshot("promoted")
    assert await comfy.panel().locator(".number").inner_text() == "from a link"


async def test_a_page_without_this_packs_javascript(comfy, browser, server_without_javascript):
    """What the page saved with the panel's help loads and runs there unchanged."""
    await comfy.drop(demo(steps=2))
    await comfy.show()
    await comfy.drag(comfy.slider("DG scale"), right=30)
    await comfy.drag(comfy.slider("Last layer"), right=30)
    saved, prompt = await comfy.saved(), await comfy.prompt()

    bare = await ComfyPage.open(browser, server_without_javascript, comfy.screenshots, comfy.name)
    await bare.drop(saved)
    assert await bare.panel().count() == 0
    assert inputs_of(await bare.prompt()) == inputs_of(prompt)
    await bare.screenshot("without_javascript")
    await bare.page.close()

    notes = {key for key, node in prompt.items() if node["class_type"] == "MarkdownNote"}
    prompt = {key: node for key, node in prompt.items() if key not in notes}
    (theirs,) = (await server_without_javascript.run(prompt)).values()
    (ours,) = (await comfy.server.run(prompt)).values()
    assert pixels(theirs) == pixels(ours)


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        return picture.tobytes()


async def test_light_and_dark(comfy):
    colours = {}
    for theme in ("light", "dark"):
        await comfy.page.evaluate(
            "theme => window.app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme
        )
        await comfy.drop(demo())
        await comfy.show(zoom=1.5)
        colours[theme] = await comfy.panel().evaluate("panel => getComputedStyle(panel).color")
        await comfy.screenshot(theme)
    assert colours["light"] != colours["dark"]


async def test_the_curve_is_drawn_before_the_run(comfy):
    """As its widget has it; nothing where that is empty, or cannot be read."""
    await comfy.drop(demo(steps=1))
    await comfy.show()
    curve = comfy.panel().locator("svg.curve")
    assert await curve.count() == 1 and not await curve.is_visible()
    write = f"""(text) => {GRAPH}.nodes.find(({{ type }}) => type === "DetailGuider")
        .widgets.find(({{ name }}) => name === "curve").value = text"""
    await comfy.page.evaluate(write, "0:0.2, 0.4:1, 1:0.5")
    await curve.wait_for(state="visible")
    assert await curve.locator("polyline").get_attribute("points") == "0,0.8 0,0.8 0.4,0 1,0.5 1,0.5"
    await comfy.screenshot("curve")
    await comfy.run()
    assert "strength" in await comfy.panel().locator(".faint").inner_text()
    await comfy.page.evaluate(write, "0.4, 1")
    await curve.wait_for(state="hidden")
