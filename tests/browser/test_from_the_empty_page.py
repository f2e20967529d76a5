"""From the empty page, with weights in place, to with and without side by side: in four actions."""

import json
from pathlib import Path

import pytest
from comfy_page import GRAPH, ComfyPage
from comfy_server import Server
from make_workflows import file_of

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = file_of("side_by_side").stem


def with_weights(workflow):
    """The template on weights that are here: the reference model's, at its size, with a prompt that it knows."""
    for node in workflow["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node |= {"type": "DetailGuidanceReferenceModel", "widgets_values": [False], "properties": {}}
        elif node["type"] == "CLIPTextEncode":
            node["widgets_values"] = ["brick wall" if node["widgets_values"][0] else ""]
        elif node["type"] == "EmptySD3LatentImage":
            node["widgets_values"] = [128, 128, 1]
    return workflow


@pytest.fixture
def base(tmp_path):
    """A folder of custom nodes: the reference model, and the pack with that template in the place of all."""
    pack = tmp_path / "custom_nodes/comfyui-detail-guidance"
    (pack / "workflows").mkdir(parents=True)
    for name in ("__init__.py", "dit", "methods", "nodes", "js", "locales"):
        (pack / name).symlink_to(ROOT / name)
    workflow = with_weights(json.loads((ROOT / f"workflows/{TEMPLATE}.json").read_text()))
    (pack / f"workflows/{TEMPLATE}.json").write_text(json.dumps(workflow))
    (pack.parent / "reference-model").symlink_to(ROOT / "tests/reference_model")
    return tmp_path


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
async def test_in_four_actions(browser, base, screenshots, renderer):
    settings = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": renderer == "nodes2"}
    async with Server(base=base, page_settings=settings) as server:
        comfy = await ComfyPage.open(browser, server, ROOT / "demo/screenshots", f"empty_{renderer}")
        await comfy.page.get_by_text("Templates", exact=True).first.click()
        await comfy.page.get_by_placeholder("Search").last.fill("start here")
        await comfy.page.get_by_text(TEMPLATE, exact=True).click()
        await comfy.page.wait_for_function(f"() => {GRAPH}.nodes.some(({{ type }}) => type === 'DetailCompare')")
        await comfy.page.wait_for_timeout(500)
        await comfy.run()

        await comfy.show(node_type="DetailCompare")
        await comfy.page.wait_for_timeout(500)
        await comfy.screenshot("side_by_side")
        assert await comfy.page.locator(".detail-compare img").locator("visible=true").count() == 2
        assert comfy.complaints == []
        await comfy.page.close()
