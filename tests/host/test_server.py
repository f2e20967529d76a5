"""The whole way: a real server, its HTTP API, the demo workflow on the reference model."""

import asyncio
import copy
import io
import json
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from comfy_server import Server
from PIL import Image

WORKFLOW = Path(__file__).resolve().parents[1] / "reference_model/demo.json"


async def pictures_and_reports(server, prompt):
    reports = []
    files = await server.run(
        prompt, lambda kind, data: reports.append(data) if kind == "detail_guidance.report" else None
    )
    (png,) = files.values()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float), reports


def with_inputs(prompt, node_type, **inputs):
    changed = copy.deepcopy(prompt)
    (node,) = [node for node in changed.values() if node["class_type"] == node_type]
    node["inputs"].update(inputs)
    return changed


async def told_to_a_page(server, prompt):
    """Kinds of messages that a page is given while a script queues a prompt without saying who it is."""
    async with server.session.ws_connect("/ws", params={"clientId": "a page"}) as page:
        async with server.session.post("/prompt", json={"prompt": prompt}) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        while prompt_id not in await server.get(f"/history/{prompt_id}"):
            await asyncio.sleep(0.1)
        async with server.session.post("/prompt", json={"prompt": prompt, "client_id": "a page"}):
            pass  # cached; its end is the mark behind all messages of the first
        kinds = []
        async for message in page:
            if message.type is aiohttp.WSMsgType.TEXT:
                kinds.append(message.json()["type"])
                if kinds[-1] == "execution_success":
                    return kinds


async def the_whole_way():
    async with Server() as server:
        prompt = await server.api_format(json.loads(WORKFLOW.read_text()))
        prompt = with_inputs(prompt, "BasicScheduler", steps=4)
        guided, reports = await pictures_and_reports(server, prompt)
        assert guided.shape == (128, 128, 3)
        (report,) = reports
        (guider,) = [key for key, node in prompt.items() if node["class_type"] == "DetailGuider"]
        assert report["node"] == guider
        assert report["family"] == "SD3 / SD3.5" and report["block_count"] == 10
        assert report["steps_fired"] == report["steps"] == 4 and report["warnings"] == []

        plain, reports = await pictures_and_reports(server, with_inputs(prompt, "DetailGuider", dg_scale=0.0))
        assert reports == [], "switched off, there is nothing to report"
        assert np.abs(guided - plain).mean() > 1
        disabled, reports = await pictures_and_reports(server, with_inputs(prompt, "DetailGuider", enabled=False))
        assert reports == [] and np.array_equal(disabled, plain), "the same as off"
        before = copy.deepcopy(prompt)
        del before[guider]["inputs"]["enabled"]
        older, _ = await pictures_and_reports(server, before)
        assert np.array_equal(older, guided), "a prompt that was saved before there was the switch"

        assert await server.get("/detail_guidance/reports") == [], "kept for pages; no page queued these"

        scripted = with_inputs(prompt, "RandomNoise", noise_seed=2)
        assert "detail_guidance.report" not in await told_to_a_page(server, scripted), "another workflow's panel"

        _, (followed,) = await pictures_and_reports(
            server, with_inputs(prompt, "DetailGuider", layer_start=0.9, layer_end=0.1)
        )
        assert followed["made_with"]["layer_end"] == 0.9 and followed["first_block"] == followed["last_block"] == 9
        with pytest.raises(RuntimeError, match=r"refused the prompt.*dg_scale"):
            await server.run(with_inputs(prompt, "DetailGuider", dg_scale=21.0))
        with pytest.raises(RuntimeError, match="does not know the words gryphon"):
            await server.run(prompt | {"2": {**prompt["2"], "inputs": {**prompt["2"]["inputs"], "text": "gryphon"}}})
        again, _ = await pictures_and_reports(server, with_inputs(prompt, "RandomNoise", noise_seed=1))
        assert np.array_equal(again, guided), "errors left something behind"


async def calibrated():
    """The node through the API: its inputs are lists there, and a list of texts is several prompts."""
    async with Server() as server:
        told = []

        def on_event(kind, data):
            if kind in ("progress", "executed", "detail_guidance.preset"):
                told.append((kind, data))

        def node(kind, **inputs):
            return {"class_type": kind, "inputs": inputs}

        sampling = {"seed": 0, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
        links = {
            "model": ["1", 0],
            "vae": ["1", 2],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
        }
        asked = {"layers": "0.5", "scales": "0.05, 0.1", "save_preset": True}
        prompt = {
            "1": node("DetailGuidanceReferenceModel"),
            "2": node("CLIPTextEncode", clip=["1", 1], text="brick wall"),
            "3": node("EmptySD3LatentImage", width=128, height=128, batch_size=2),
            "4": node("DetailGuidanceCalibrate", **links, **sampling, **asked),
            "5": node("PreviewAny", source=["4", 4]),
            "6": node("PreviewImage", images=["4", 2]),
        }
        pictures = await server.run(prompt, on_event)
        assert Image.open(io.BytesIO(pictures["6"])).size[0] > 3 * 256
        (report,) = [data["output"]["text"][0] for kind, data in told if kind == "executed" and data["node"] == "5"]
        assert "At layer 0.5 pictures keep their layout up to scale 0.1" in report
        steps = [data["value"] for kind, data in told if kind == "progress" and data["node"] == "4"]
        assert steps == [1, 2, 3, 4, 5, 6], "one bar over all: without, and two settings, of two steps"
        (preset,) = [data for kind, data in told if kind == "detail_guidance.preset"]
        assert await server.get("/detail_guidance/presets") == [preset]


def test_calibration_through_the_api():
    asyncio.run(calibrated())


def test_the_demo_workflow_through_the_api():
    asyncio.run(the_whole_way())


def test_a_server_that_does_not_start_shows_its_log():
    async def start():
        async with Server(("--no-such-argument",)):
            pass

    with pytest.raises(RuntimeError, match="unrecognized arguments: --no-such-argument"):
        asyncio.run(start())
