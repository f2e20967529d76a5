"""Every workflow template that the host's packages bring takes the nodes, by the host's own validation."""

import asyncio
import json
from importlib.metadata import version
from inspect import iscoroutinefunction

import execution
import pytest
import templates
from provision import ROOT

import nodes as comfy_nodes

DOCUMENT = ROOT / "docs/TEMPLATES.md"
GUIDERS = {"CFGGuider": "positive", "BasicGuider": "conditioning"}  # their input of the prompt
RENAMED = {("BasicGuider", "conditioning"): "positive"}


@pytest.fixture(scope="module")
def host_nodes(pack):
    """All of the host's own, registered."""
    found = comfy_nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    if iscoroutinefunction(comfy_nodes.init_extra_nodes):
        asyncio.run(found)


@pytest.fixture(scope="module")
def widgets(pack):
    """Node → its widgets' defaults."""
    return {
        kind: {
            i.id: i.default for i in pack.classes[kind].GET_SCHEMA().inputs if getattr(i, "default", None) is not None
        }
        for kind in ("DetailGuidance", "DetailGuider")
    }


def with_detail_guidance(prompt, widgets):
    """In front of every sampler."""
    changed = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
    for key, node in prompt.items():
        if node["class_type"] in templates.SAMPLERS and "model" in node["inputs"]:
            inputs = {**widgets["DetailGuidance"], "model": node["inputs"]["model"]}
            changed[f"{key}:guided"] = {"class_type": "DetailGuidance", "inputs": inputs}
            changed[key]["inputs"]["model"] = [f"{key}:guided", 0]
    return changed


def with_detail_guider(prompt, widgets):
    """In the place of the host's."""
    changed = dict(prompt)
    for key, node in prompt.items():
        if node["class_type"] in GUIDERS:
            given = node["inputs"]
            links = {"model": given.get("model"), "positive": given.get(GUIDERS[node["class_type"]])}
            links |= {name: given[name] for name in ("negative", "cfg") if name in given}
            inputs = {**widgets["DetailGuider"], **{name: value for name, value in links.items() if value}}
            changed[key] = {"class_type": "DetailGuider", "inputs": inputs}
    return changed


def errors(prompt):
    """What the host says against a prompt: (node, kind of error, input)."""
    _, error, _, of_nodes = asyncio.run(execution.validate_prompt("templates", prompt, None))
    assert of_nodes or not error or error["type"] == "prompt_no_outputs", "the host has looked at every node"
    return {
        (key, one["type"], (one.get("extra_info") or {}).get("input_name", ""))
        for key, found in of_nodes.items()
        for one in found["errors"]
    }


@pytest.mark.parametrize("change", [with_detail_guidance, with_detail_guider])
def test_every_template_takes_the_nodes(host_nodes, widgets, change):
    sampling, refusals = 0, {}
    for file in templates.files():
        nodes = templates.graph(json.loads(file.read_text()))
        # What calls others' servers, or is another pack's, is not here; the host would look no further.
        known = {key: node for key, node in nodes.items() if node.kind in comfy_nodes.NODE_CLASS_MAPPINGS}
        prompt = templates.prompt(known)
        changed = change(prompt, widgets)
        if changed == prompt:
            continue
        sampling += 1
        before = {
            (key, kind, RENAMED.get((prompt[key]["class_type"], name), name)) for key, kind, name in errors(prompt)
        }
        if new := errors(changed) - before:
            refusals[file.stem] = new
    assert refusals == {}
    assert sampling > 10


def test_a_wrong_link_would_be_an_error(host_nodes, widgets):
    """The host's validation tells what does not fit, or the test above shows nothing."""
    loader = {"class_type": "VAELoader", "inputs": {"vae_name": "none"}}
    sampler = {"class_type": "DetailGuidance", "inputs": {**widgets["DetailGuidance"], "model": ["1", 0]}}
    preview = {"class_type": "KSampler", "inputs": {"model": ["2", 0]}}
    saved = {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}}
    out = {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}
    found = errors({"1": loader, "2": sampler, "3": preview, "4": saved, "5": out})
    assert ("2", "return_type_mismatch", "model") in found


def test_every_model_that_a_template_samples_is_known(pack):
    """None of a family that nobody has looked at; at least 95 of 100 of the Diffusion Transformers are supported."""
    table = {family.name for family in pack.module("dit.families").FAMILIES}
    known = table | set(templates.REFUSED) | set(templates.NO_TRANSFORMER)
    found = {file.stem: templates.sampled(templates.graph(json.loads(file.read_text()))) for file in templates.files()}
    unknown = {(stem, each.file) for stem, all_ in found.items() for each in all_ if each.family not in known}
    assert unknown == set()
    transformers = [all_ for all_ in found.values() if any(e.family not in templates.NO_TRANSFORMER for e in all_)]
    refused = [all_ for all_ in transformers if any(each.refused for each in all_)]
    assert len(refused) <= 0.05 * len(transformers)


def test_the_document_is_of_the_templates_at_hand():
    here = version("comfyui-workflow-templates")
    if f"comfyui-workflow-templates {here} (" not in DOCUMENT.read_text():
        pytest.skip(f"docs/TEMPLATES.md is of other templates than {here}")
    assert DOCUMENT.read_text() == templates.table()
