"""A person as the scorer of a grid, through a real server: grid, blind choice, judge."""

import asyncio
import io
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
import torch
from comfy_server import Server
from PIL import Image

PICTURES, SETTINGS = 8, 2
PLANTED = 2  # the number of the batch that the person prefers
WAITS = f"{PICTURES * SETTINGS} of {PICTURES * SETTINGS} pairs have no choice yet: choose on the node, then run again"


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def prompt(choices="", seed=0, noise=0):
    sampling = {"seed": noise, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    tried = {"layers": "0.3, 0.7", "scales": "0.5", "starts": "0", "perturbations": "massive channels"}
    links = {"model": ["1", 0], "vae": ["1", 2], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
    return {
        "1": node("DetailGuidanceReferenceModel"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="brick wall"),
        "3": node("EmptySD3LatentImage", width=128, height=128, batch_size=PICTURES),
        "grid": node("DetailGuidanceGrid", **links, **sampling, **tried, paths="positive"),
        "blind": node("DetailBlindChoice", pictures=["grid", 0], choices=choices, seed=seed),
        "judge": node("DetailGuidanceJudge", grid=["grid", 1], scores=["blind", 0], save_preset=True),
        "in grid's order": node("PreviewImage", images=["grid", 0]),
        "verdict": node("PreviewAny", source=["judge", 4]),
        "counted": node("PreviewAny", source=["blind", 1]),
    }


class Ran(NamedTuple):
    outputs: dict  # of each node that put out something
    presets: list
    said: str  # in the log


async def run(server, **inputs):
    outputs, presets = {}, []

    def on_event(kind, data):
        if kind == "executed":
            outputs[data["node"]] = data["output"]
        if kind == "detail_guidance.preset":
            presets.append(data)

    before = len(server.log.read_text())
    await server.run(prompt(**inputs), on_event)
    return Ran(outputs, presets, server.log.read_text()[before:])


async def pixels(server, file):
    async with server.session.get("/view", params=file) as answer:
        with Image.open(io.BytesIO(await answer.read())) as picture:
            return picture.tobytes()


def chosen(pairs, prefers):
    """The letter of each pair: `prefers` gives the batch to prefer to the one without, 0 for that one, or None."""
    letters = ""
    for left, right in pairs:
        setting = max(left, right)
        preferred = prefers(setting)
        letters += "=" if preferred is None else "l" if preferred == left else "r"
    return letters


async def the_whole_way():
    async with Server() as server:
        first = await run(server)
        assert "verdict" not in first.outputs and "counted" not in first.outputs and first.presets == []
        assert WAITS in first.said and "counts as none" not in first.said
        (shown,) = first.outputs["blind"]["detail_blind_choice"]
        key, files = shown["key"], shown["pairs"]
        assert shown.keys() == {"key", "pairs", "choices", "said"} and shown["said"].startswith(WAITS)

        names = [file["filename"] for pair in files for file in pair]
        assert len(set(names)) == len(names) == 2 * PICTURES * SETTINGS
        assert names == sorted(names), "numbered by the place"
        batch_of = {}
        for number, file in enumerate(first.outputs["in grid's order"]["images"]):
            batch_of[await pixels(server, file)] = divmod(number, PICTURES)
        assert len(batch_of) == PICTURES * (1 + SETTINGS), "all pictures differ"
        sides = [[batch_of[await pixels(server, file)] for file in pair] for pair in files]
        assert all(left[1] == right[1] for left, right in sides), "the same noise"
        pairs = [(left[0], right[0]) for left, right in sides]
        assert sorted(map(sorted, pairs)) == sorted([0, setting] for setting in (1, 2) for _ in range(PICTURES))
        assert 0 < sum(left == 0 for left, _ in pairs) < len(pairs)

        planted = chosen(pairs, lambda setting: setting if setting == PLANTED else 0)
        part = await run(server, choices=f"{key}:{planted[:-3]}")
        assert "verdict" not in part.outputs and "counted" not in part.outputs and "3 of 16 pairs have no" in part.said
        assert part.outputs["blind"]["detail_blind_choice"][0]["key"] == key

        done = await run(server, choices=f"{key}:{planted}")
        (verdict,) = done.outputs["verdict"]["text"]
        assert verdict.startswith("Detail Guidance helps this model")
        assert "layer 0.7, scale 0.5 was the surest gain" in verdict and "they score higher by +1.000" in verdict
        (preset,) = done.presets
        assert (preset["verdict"], preset["layer"], preset["scale"]) == ("helps", 0.7, 0.5)
        (counted,) = done.outputs["counted"]["text"]
        assert counted == done.outputs["blind"]["detail_blind_choice"][0]["said"]
        assert counted.startswith(
            "With Detail Guidance was chosen in 8 of 16 pairs, without in 8, no difference in 0: 50"
        )
        assert "no choice yet" not in done.said

        coin = Random(1)
        random = await run(server, choices=f"{key}:{''.join(coin.choice('lr=') for _ in pairs)}")
        (verdict,) = random.outputs["verdict"]["text"]
        assert not verdict.startswith("Detail Guidance helps")
        assert all(preset["scale"] == 0 for preset in random.presets)

        for other in ({"seed": 1}, {"noise": 1}):
            refused = await run(server, choices=f"{key}:{planted}", **other)
            assert "verdict" not in refused.outputs and "counted" not in refused.outputs, other
            (shown,) = refused.outputs["blind"]["detail_blind_choice"]
            sentence = f"choices: it is of other pictures or another seed and counts as none, so {WAITS}"
            assert sentence in refused.said and shown["said"].startswith(sentence) and shown["key"] != key

        for wrong, message in {
            "left": "choices: 'left' is not a key of eight hexadecimal digits",
            f"{key}:{planted}l": "has 17 letters, there are 16 pairs",
        }.items():
            with pytest.raises(RuntimeError, match=f"DetailBlindChoice: .*{message}"):
                await run(server, choices=wrong)


def test_the_whole_way():
    asyncio.run(the_whole_way())


def test_pictures_that_make_no_pairs(pack):
    def blind(*batches):
        return pack.outputs("DetailBlindChoice", pictures=list(batches), choices=[""], seed=[0])

    eight = torch.rand(8, 32, 32, 3)
    with pytest.raises(ValueError, match="pictures: it is one batch"):
        blind(eight)
    with pytest.raises(ValueError, match=r"pictures: its batches are 8 of 32 × 32, 7 of 32 × 32"):
        blind(eight, eight[1:])
    with pytest.raises(ValueError, match=r"pictures: its shape is \(8, 32, 32\)"):
        blind(eight[..., 0], eight)
    with pytest.raises(ValueError, match=r"pictures: there is none\. Connect Detail Guidance Grid"):
        blind(None, eight)


def test_transparency_is_left_out(pack, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    opaque = [torch.rand(2, 32, 32, 3) for _ in range(2)]
    clear = [torch.cat([each, torch.rand(2, 32, 32, 1)], dim=3) for each in opaque]
    keys = []
    for batches in (opaque, clear):
        shown = pack.outputs("DetailBlindChoice", pictures=batches, choices=[""], seed=[0]).ui["detail_blind_choice"][0]
        keys.append(shown["key"])
        file = Path(tmp_path, shown["pairs"][0][0]["filename"])
        with Image.open(file) as picture:
            assert picture.mode == "RGB"
    assert keys[0] == keys[1]
