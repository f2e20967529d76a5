"""What a method asks of `dit`: each against ordinary PyTorch hooks, on the host's own classes."""

import importlib
import re
import shutil
import sys
from contextlib import ExitStack

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from family_models import CASES, load
from models import model
from plain import hooked, relative_error
from provision import ROOT
from sampling import sample, stock_guider
from test_families import of_cases

GATED = ("Flux", "Chroma", "Flux.2", "Qwen-Image", "Wan text to video", "HunyuanVideo", "Lumina 2")
APPENDED = ("Flux", "Flux.2", "Qwen-Image", "Wan text to video", "HunyuanVideo", "Lumina 2")


@pytest.fixture(scope="module")
def dit(pack):
    return pack.module("dit")


def subject(name):
    """Model, blocks' modules, a guider without CFG and noise for it."""
    if name == "SD3":
        patcher = model()
        return patcher, [*patcher.model.diffusion_model.joint_blocks], stock_guider(patcher, cfg=1.0), None
    case, patcher = CASES[name], load(name)
    guider = stock_guider(patcher, positive=case.conditioning(1), cfg=1.0)
    return patcher, case.blocks(patcher.model.diffusion_model), guider, case.noise(1)


def run(dit, patcher, guider, noise, patches_for):
    """One step under block patches."""
    clone = dit.on_run(patcher, "test", lambda guider: _wrappers({WrappersMP.APPLY_MODEL: dit.patched(patches_for)}))
    guider.model_patcher, guider.model_options = clone, clone.model_options
    return sample(guider, noise=noise, steps=1)


class _wrappers:
    def __init__(self, wrappers):
        self.wrappers = wrappers

    def __enter__(self):
        return self.wrappers

    def __exit__(self, *_):
        return False


def layout_of(dit, anatomy, batch):
    return dit.token_layout(anatomy.family, anatomy.network, batch.latent, batch.conditions, {})


# The layer alone


def example():
    """The method of forty lines that docs/DEVELOPMENT.md has."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/DEVELOPMENT.md").read_text(), re.S)
    return code


def test_dit_alone_carries_a_method(tmp_path, monkeypatch):
    """The layer in a folder without this pack's methods, and the documents' own example beside it."""
    package = tmp_path / "alone"
    shutil.copytree(ROOT / "dit", package / "dit", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    (package / "method.py").write_text(example())
    assert len(example().splitlines()) <= 40
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        method = importlib.import_module("alone.method")
        assert not [name for name in sys.modules if name.startswith("alone.methods")]
        patcher, w, block = model(), 0.8, 2
        guider = stock_guider(patcher)
        guider.model_patcher = method.shuffled_guidance(patcher, w, block)
        actual = sample(guider, batch=2)
    finally:
        for name in [name for name in sys.modules if name.startswith("alone")]:
            del sys.modules[name]
    assert relative_error(actual, sample(Shuffled(patcher, w, block), batch=2)) <= 1e-5
    assert relative_error(actual, sample(stock_guider(patcher), batch=2)) > 1e-3


def Shuffled(patcher, w, block):
    """The same by an ordinary hook and full forwards."""
    guider = stock_guider(patcher)
    predict = type(guider).predict_noise

    def shuffle(_, args, kwargs):
        context, z, *rest = args
        order = torch.randperm(z.shape[1], generator=torch.Generator().manual_seed(0))
        return (context, z[:, order], *rest), kwargs

    def predict_noise(x, timestep, model_options={}, seed=None):
        from comfy.samplers import calc_cond_batch

        base = predict(guider, x, timestep, model_options, seed)
        (c,) = calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, timestep, model_options)
        with hooked(guider.inner_model.diffusion_model.joint_blocks, {block: shuffle}):
            (d,) = calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, timestep, model_options)
        return base + w * (c - d)

    guider.predict_noise = predict_noise
    return guider


def test_a_second_run_under_one_key_takes_the_firsts_place(dit):
    calls = []

    def start(name):
        return lambda guider: _wrappers(calls.append(name) or {})

    first = dit.on_run(model(), "test", start("first"))
    second = dit.on_run(first, "test", start("second"))
    for patcher in (first, second, dit.without_run(second, "test")):
        sample(stock_guider(patcher), steps=1)
    assert calls == ["first", "second"]
    assert not dit.has_run(model(), "test"), "the model itself stays as it was"


# Sublayers


@pytest.mark.parametrize("name", ["SD3"])
@pytest.mark.parametrize("block", range(4))
def test_sd3_sublayers_are_what_the_gates_multiply(dit, name, block):
    check_gates(dit, name, block)


@of_cases(*GATED)
@pytest.mark.parametrize("block", [0, 2])
def test_sublayers_are_what_the_gates_multiply(dit, name, block):
    check_gates(dit, name, block)


def check_gates(dit, name, number):
    """A block's output is its input plus each sublayer's output times the block's own gate; Wan's attention to the
    prompt has no gate, so it is taken out."""
    patcher, modules, guider, noise = subject(name)
    anatomy = dit.anatomy_of(patcher)
    stage, seen, states = anatomy.blocks[number].stage, {}, {}
    if not stage.sublayers:
        pytest.skip("this stage's sublayers are not known")

    def patches_for(batch):
        def patch(args, inner):
            states["in"] = stage.image_stream(args, slice(None)).clone()
            states["gates"] = stage.modulation(anatomy.block(number), args)[..., 2, :]
            out = inner(args)
            states["out"] = stage.image_stream(out, slice(None)).clone()
            return out

        return {anatomy.blocks[number].key: patch}

    across = []
    with ExitStack() as stack:
        stack.enter_context(
            dit.on_sublayers(anatomy, [number], lambda block, sublayer, out: seen.update({sublayer: out.clone()}))
        )
        if hasattr(modules[number], "cross_attn"):
            handle = modules[number].cross_attn.register_forward_hook(lambda *hooked: across.append(hooked[2].clone()))
            stack.callback(handle.remove)
        run(dit, patcher, guider, noise, patches_for)
    expected = states["in"] + sum(across)
    for sublayer, out in seen.items():
        expected = expected + states["gates"][:, sublayer, None] * out
    assert relative_error(states["out"], expected) <= 1e-5
    assert relative_error(states["in"], expected) > 1e-3


def test_a_sublayers_output_is_replaced(dit):
    patcher, modules, guider, _ = subject("SD3")
    anatomy = dit.anatomy_of(patcher)
    with dit.on_sublayers(anatomy, [1], lambda block, sublayer, out: out * 0 if sublayer == 1 else None):
        actual = sample(guider, steps=1)
    handle = modules[1].x_block.mlp.register_forward_hook(lambda *hooked: hooked[2] * 0)
    expected = sample(guider, steps=1)
    handle.remove()
    assert torch.equal(actual, expected)
    assert not torch.equal(sample(guider, steps=1), expected), "the hooks are gone"


def test_linear_layers_inputs(dit):
    patcher, modules, guider, _ = subject("SD3")
    statistics, plain = {}, {}
    names = {f"joint_blocks.1.{n}": m for n, m in modules[1].named_modules() if isinstance(m, torch.nn.Linear)}
    handles = [
        m.register_forward_pre_hook(lambda _, args, n=n: plain.setdefault(n, []).append(args[0].flatten(0, -2)))
        for n, m in names.items()
    ]
    with dit.observing_linear_inputs(dit.anatomy_of(patcher), [1], statistics):
        sample(guider, steps=2)
    for handle in handles:
        handle.remove()
    assert statistics.keys() == plain.keys() == names.keys() and len(plain) > 6
    for name, seen in statistics.items():
        inputs = torch.cat(plain[name])
        assert seen.tokens == len(inputs) and seen.peak.device.type == "cpu"
        torch.testing.assert_close(seen.peak, inputs.abs().amax(dim=0))
        torch.testing.assert_close(seen.square, inputs.square().sum(dim=0))


# Attention


@pytest.mark.parametrize("share", [0.0, 0.75])
def test_sd3s_attention_is_replaced(dit, share):
    check_replaced(dit, "SD3", share)


@of_cases("Flux", "Qwen-Image", "Wan text to video", "HunyuanVideo", "AuraFlow")
@pytest.mark.parametrize("share", [0.0, 0.75])
def test_attention_is_replaced(dit, name, share):
    check_replaced(dit, name, share)


def check_replaced(dit, name, share):
    """By attention in full precision: the same pictures; by a changed one: others."""
    patcher, _, guider, noise = subject(name)
    anatomy = dit.anatomy_of(patcher)
    number, lse = int(share * len(anatomy.blocks)), []
    expected = sample(guider, noise=noise, steps=1)

    def answering(factor):
        def on_call(call):
            out, sums = dit.attention_with_lse(call)
            scores = (call.q.double() @ call.k.double().transpose(-1, -2)) * call.scale
            if call.mask is None:
                lse.append(relative_error(sums.double(), scores.logsumexp(dim=-1)))
            return out * factor

        def patches_for(batch):
            layout = layout_of(dit, anatomy, batch)
            patch = dit.attention_patch(anatomy, number, layout, batch, on_call)
            return dit.by_key(dit.checked({number: patch}, anatomy.blocks, layout, None), anatomy.blocks)

        return run(dit, patcher, guider, noise, patches_for)

    assert relative_error(answering(1.0), expected) <= 1e-5 and max(lse) <= 1e-6
    assert relative_error(answering(0.5), expected) > 1e-4


def test_attention_to_fewer_keys(dit):
    """`allowed` is a mask more: against an explicit softmax in double precision."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 8, generator=generator) for heads in (4, 2, 2))
    mask, allowed = torch.randn(2, 1, 9, 9, generator=generator), torch.rand(9, 9, generator=generator) > 0.4
    call = dit.AttentionCall(q, k, v, mask, None, None, ["a", "b"], [0, 0], None)
    out, lse = dit.attention_with_lse(call, allowed)
    wide = [each.double().repeat_interleave(2, dim=1) for each in (k, v)]
    scores = q.double() @ wide[0].transpose(-1, -2) / 8**0.5 + mask
    scores = scores.masked_fill(~allowed, -torch.inf)
    torch.testing.assert_close(out.double(), scores.softmax(dim=-1) @ wide[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(lse.double(), scores.logsumexp(dim=-1), rtol=1e-5, atol=1e-6)


def test_other_nodes_overrides_stay_in_the_chain(dit):
    patcher, _, guider, _ = subject("SD3")
    anatomy, calls = dit.anatomy_of(patcher), []

    def others(attention, *args, **kwargs):
        calls.append(1)
        return attention(*args, **kwargs)

    patcher = patcher.clone()
    patcher.model_options["transformer_options"]["optimized_attention_override"] = others

    def patches_for(batch):
        layout = layout_of(dit, anatomy, batch)
        return {
            anatomy.blocks[1].key: dit.attention_patch(
                anatomy, 1, layout, batch, lambda call: call.run(call.q, call.k, call.v)
            )
        }

    assert torch.equal(run(dit, patcher, guider, None, patches_for), sample(stock_guider(model(), cfg=1.0), steps=1))
    assert len(calls) == 4, "once for each block"


# Tokens


@pytest.mark.parametrize("name", ["SD3"])
def test_tokens_appended_to_sd3(dit, name):
    check_appended(dit, name)


@of_cases(*APPENDED)
def test_tokens_appended(dit, name):
    check_appended(dit, name)


def check_appended(dit, name):
    """Some of the picture's own tokens once more, with their positions, behind the image at every block of a stage:
    against blocks that are given longer arguments by ordinary hooks."""
    patcher, modules, guider, noise = subject(name)
    anatomy = dit.anatomy_of(patcher)
    first = next(n for n, block in enumerate(anatomy.blocks) if block.stage.order != "text image" or n > 0)
    stage, count = anatomy.blocks[first].stage, 3
    numbers = [n for n, block in enumerate(anatomy.blocks) if block.stage is stage]
    kept = {}

    def patches_for(batch):
        layout = layout_of(dit, anatomy, batch)

        def patch_of(number):
            def patch(args, inner):
                if number == numbers[0]:
                    kept["tokens"] = stage.image_stream(args, slice(None))[:, -count:].clone()
                positions = positions_of(args)
                longer = dit.append_tokens(anatomy, number, layout, args, kept["tokens"], positions)
                out, kept["tokens"] = dit.without_appended(anatomy, number, inner(longer), count)
                return out

            return patch

        def positions_of(args):
            if stage.positions is None:
                return None
            name, dim = stage.positions
            where = None if stage.prompt_keys is None else stage.prompt_keys(anatomy.block(numbers[0]))
            end = args[stage.image].shape[1] if where == "behind" else args[name].shape[dim]
            return args[name].narrow(dim, end - count, count)

        return {anatomy.blocks[n].key: patch_of(n) for n in numbers}

    actual = run(dit, patcher, guider, noise, patches_for)
    guider.model_patcher = patcher
    assert relative_error(actual, sample(guider, noise=noise, steps=1)) > 1e-4, "the others see them"
    expected = longer_by_hooks(stage, [modules[n] for n in numbers], guider, noise, count, anatomy, numbers[0])
    assert relative_error(actual, expected) <= 1e-5


def longer_by_hooks(stage, modules, guider, noise, count, anatomy, number):
    """The same with the blocks' forward wrapped: tokens and positions concatenated by hand."""
    from inspect import signature

    kept = {}

    def wrap(position, block):
        # SD3's blocks are called as block(context, x, c); the others by their names.
        forward = block.forward
        names = list(signature(forward).parameters)

        def longer(*args, **kwargs):
            if not names or names[0] == "args":  # SD3
                context, x, *rest = args
                if position == 0:
                    kept["tokens"] = x[:, -count:].clone()
                text, image = forward(context, torch.cat([x, kept["tokens"]], dim=1), *rest, **kwargs)
                kept["tokens"] = image[:, -count:]
                return text, image[:, :-count]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            image_name = next(n for n in ("img", "hidden_states", "x") if n in given)
            if position == 0:
                kept["tokens"] = given[image_name][:, -count:].clone()
            length = given[image_name].shape[1]
            positions = next(n for n in ("pe", "image_rotary_emb", "freqs", "freqs_cis") if n in given)
            dim, table = stage.positions[1], given[positions]
            # HunyuanVideo's first stage has the image before the text; the others' positions end with the image's.
            end = length if getattr(block, "flipped_img_txt", False) else table.shape[dim]
            head, tail = table.narrow(dim, 0, end), table.narrow(dim, end, table.shape[dim] - end)
            given[positions] = torch.cat([head, head.narrow(dim, end - count, count), tail], dim)
            given[image_name] = torch.cat([given[image_name], kept["tokens"]], dim=1)
            out = forward(**given)
            parts = out if isinstance(out, tuple) else (out,)
            at = next(n for n, part in enumerate(parts) if part.shape[1] == length + count)
            kept["tokens"] = parts[at][:, -count:]
            parts = tuple(part[:, :-count] if n == at else part for n, part in enumerate(parts))
            return parts if isinstance(out, tuple) else parts[0]

        block.forward = longer
        return lambda: vars(block).pop("forward")

    undo = [wrap(position, block) for position, block in enumerate(modules)]
    try:
        return sample(guider, noise=noise, steps=1)
    finally:
        for each in undo:
            each()


def test_tokens_without_positions_are_refused(dit):
    anatomy = dit.anatomy_of(load("Flux"))
    args = {"img": torch.zeros(1, 4, 8), "pe": torch.zeros(1, 1, 9, 2, 2, 2)}
    layout = dit.TokenLayout("Flux", None, {}, False)
    with pytest.raises(ValueError, match=r"positions: Flux / Flux\.2 needs them, in the form of its argument pe"):
        dit.append_tokens(anatomy, 0, layout, args, torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match=r"positions: SD3 / SD3\.5 has none in its blocks"):
        dit.append_tokens(
            dit.anatomy_of(model()), 0, layout, {"img": args["img"], "txt": None}, torch.zeros(1, 2, 8), 1
        )


# What a row of the table says is believed only where it is tried


def claims():
    """Field of a stage → the cases that try it."""
    from test_features import MODULATED
    from test_words import READ

    return {"sublayers": GATED, "positions": APPENDED, "modulation": tuple(MODULATED), "prompt_keys": tuple(READ)}


@pytest.mark.parametrize("field", ["sublayers", "positions", "modulation", "prompt_keys"])
def test_what_a_row_says_is_tried(pack, dit, field):
    """Every family whose row has the field, but those of classes that this host lacks."""
    families = pack.module("dit.families").FAMILIES
    cases = [name for name in claims()[field] if CASES[name].lacking is None]
    tried = {"sd3"} | {dit.anatomy_of(load(name)).family.id for name in cases}
    here = {dit.anatomy_of(load(name)).family.id for name, case in CASES.items() if case.lacking is None}
    said = {family.id for family in families if any(vars(stage)[field] for stage in family.stages)}
    # Rows that share their stages with one that is tried.
    shared = {
        family.id for family in families for other in families if other.id in tried and family.stages == other.stages
    }
    assert said & (here | {"sd3"}) <= tried | shared
