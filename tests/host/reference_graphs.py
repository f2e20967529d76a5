"""The workflows that are offered, on the reference model: only weights, sizes, words and steps are changed."""

from typing import Any

SMALLER = 8  # 1024 pixels and 128
PIXELS = {"width", "height", "x", "y"}


def on_the_reference_model(
    prompt: dict[str, Any], text: str, steps: int, smaller: int = SMALLER, objects: bool = False
) -> dict[str, Any]:
    """A workflow in API format. The loader's outputs are in the order of the host's for checkpoints.

    Args:
        text: in place of its prompts that are not empty; its first word in place of the words that are looked for.
        smaller: by which sizes and places are divided.
        objects: the model that knows objects on textures.
    """
    for node in prompt.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "CheckpointLoaderSimple":
            node.update(class_type="DetailGuidanceReferenceModel", inputs={"objects": objects})
        if "steps" in inputs:
            inputs["steps"] = steps
        if isinstance(inputs.get("text"), str) and inputs["text"]:
            inputs["text"] = text
        if isinstance(inputs.get("words"), str):
            inputs["words"] = text.split()[0]
        if kind == "MatchFeatures" and inputs["points"]:
            places = [[float(number) for number in point.split(",")] for point in inputs["points"].split(";")]
            inputs["points"] = "; ".join(f"{x / smaller:g}, {y / smaller:g}" for x, y in places)
        for name in PIXELS & inputs.keys():
            inputs[name] //= smaller
    return prompt
