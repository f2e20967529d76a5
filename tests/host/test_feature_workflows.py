"""The workflows with words and features, as they are offered, on the reference model."""

import asyncio
import io
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from comfy_server import Server
from make_workflows import file_of
from PIL import Image
from reference_graphs import on_the_reference_model


async def drawn(name, video=None, more={}):
    """The first picture of each node that shows some, by its title or kind.

    `more`: nodes in API format that are added, by their names.
    """
    graph = json.loads(file_of(name).read_text())
    async with Server() as server:
        prompt = on_the_reference_model(await server.api_format(graph), "brick wall", steps=4) | more
        if video:
            form = {"image": video.open("rb"), "type": "input"}
            async with server.session.post("/upload/image", data=form) as answer:
                answer.raise_for_status()
                uploaded = (await answer.json())["name"]
            next(node for node in prompt.values() if node["class_type"] == "LoadVideo")["inputs"]["file"] = uploaded
        files = await server.run(prompt)
    titles = {str(node["id"]): node.get("title", node["type"]) for node in graph["nodes"]}
    return {titles.get(number, number): Image.open(io.BytesIO(png)).convert("RGB") for number, png in files.items()}


def test_transfer_mask():
    found = asyncio.run(drawn("transfer_mask"))
    assert found.keys() == {"Points", "How alike", "The part in the other picture"}
    assert found["Points"].size == (2 * 128 + 8, 128)
    mask = np.asarray(found["The part in the other picture"])[..., 0]
    assert mask.max() > 3 * mask.mean() > 0, "a part, and not all of it"
    assert found["The part in the other picture"].size == found["How alike"].size == (128, 128)


def test_words():
    found = asyncio.run(drawn("words"))
    assert found.keys() >= {"Where the word is", "SaveImage"}
    assert found["Where the word is"].size == found["SaveImage"].size == (128, 128)


def test_parts():
    found = asyncio.run(drawn("parts"))
    assert found.keys() == {"Pictures", "Components", "Parts", "A mask for each part"}
    colours = np.asarray(found["Parts"]).reshape(-1, 3)
    assert 2 <= len(np.unique(colours, axis=0)) <= 4


def test_follow_mask(tmp_path):
    """A red square that moves over a wall by 32 pixels: its mask is given in the first frame, and looked at in the
    last."""
    from comfy_api.latest import InputImpl, Types

    wall = torch.rand(16, 64, 96, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    for frame in range(len(wall)):
        wall[frame, 16:48, 32 + 2 * frame : 64 + 2 * frame, 0] += 0.6
    file = tmp_path / "moving.mp4"
    InputImpl.VideoFromComponents(Types.VideoComponents(images=wall, frame_rate=Fraction(8))).save_to(str(file))
    graph = json.loads(file_of("follow_mask").read_text())
    (found,) = [str(node["id"]) for node in graph["nodes"] if node["type"] == "MatchFeatures"]
    last = {
        "all": {"class_type": "MaskToImage", "inputs": {"mask": [found, 1]}},
        "one": {"class_type": "ImageFromBatch", "inputs": {"image": ["all", 0], "batch_index": 15, "length": 1}},
        "last": {"class_type": "PreviewImage", "inputs": {"images": ["one", 0]}},
    }
    found = asyncio.run(drawn("follow_mask", file, last))
    assert found.keys() == {"MaskPreview", "How alike", "last"}
    first, last = (np.asarray(found[name])[..., 0] / 255 for name in ("MaskPreview", "last"))
    columns = np.arange(96) + 0.5
    at_first, at_last = ((each.sum(axis=0) * columns).sum() / each.sum() for each in (first, last))
    assert first.shape == (64, 96) and at_first == pytest.approx(48, abs=4)
    assert at_last - at_first == pytest.approx(30, abs=12)


@pytest.mark.parametrize("name", ["words", "transfer_mask", "follow_mask", "parts"])
def test_what_they_do_is_said(name):
    graph = json.loads(file_of(name).read_text())
    (note,) = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    assert len(note["widgets_values"][0]) > 100
