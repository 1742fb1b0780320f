"""A merged layer answers with the sum of now: after any optimiser, mode, hook, cast or copy."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import lora_mini as lm
from lora_mini import LoRALinear
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear

KINDS = [LoRALinear, DoRALinear, PiSSALinear, LoRAFALinear]
OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.05),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=0.5, fused=True),
    "fused Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, fused=True),
    "through .data": None,
}


def model(kind=LoRALinear, d_in=6, d_out=4, base=None):
    torch.manual_seed(0)
    net = nn.Sequential(base or nn.Linear(d_in, d_out), nn.Tanh(), nn.Linear(d_out, 3))
    lm.attach(net, ["0"], rank=2, alpha=5, layer=kind)
    with torch.no_grad():
        net[0].lora_B.normal_()
    return net, torch.randn(5, d_in)


def outputs(net, x):
    """Merged and apart, without gradient."""
    with torch.no_grad():
        lm.merge(net)
        net(x)
        merged = net(x)
        lm.unmerge(net)
        apart = net(x)
        lm.merge(net)
    return merged, apart


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_while_merged_is_seen_at_once(kind, optimizer):
    net, x = model(kind)
    merged, _ = outputs(net, x)
    parameters = [p for p in net.parameters() if p.requires_grad]
    make = OPTIMIZERS[optimizer]
    step = make(parameters) if make else None
    for _ in range(3):
        net(x).square().sum().backward()
        with torch.no_grad():
            net(x)  # a look between backward and step, whose sum may not outlive the step
        if step:
            step.step()
        else:
            for p in parameters:
                p.data += 0.1
    with torch.no_grad():
        now = net(x)
        lm.unmerge(net)
        torch.testing.assert_close(now, net(x))
    assert (now - merged).abs().max() > 0.01


@pytest.mark.parametrize("d_in, d_out", [(6, 4), (3, 7)])
def test_merging_again_always_forms_the_sum_anew(d_in, d_out):
    net, x = model(d_in=d_in, d_out=d_out)
    outputs(net, x)
    net[0].base.weight.data.mul_(2)  # the one write that leaves no trace
    merged, apart = outputs(net, x)
    torch.testing.assert_close(merged, apart)


def test_an_evaluation_under_autocast_leaves_nothing_rounded():
    net, x = model()
    _, apart = outputs(net, x)
    lm.merge(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net(x)
    with torch.no_grad():
        torch.testing.assert_close(net(x), apart)
    with torch.autocast("cpu", torch.bfloat16):
        lm.merge(net, keep_base=False)
    with torch.no_grad():
        torch.testing.assert_close(net(x), apart)


@pytest.mark.parametrize("wrap", [torch.nn.utils.weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_parametrized_base_is_summed_anew(wrap):
    net, x = model(base=wrap(nn.Linear(6, 4)))
    merged, apart = outputs(net, x)
    torch.testing.assert_close(merged, apart)
    with torch.no_grad():
        for name, p in net[0].base.named_parameters():
            if "weight" in name:
                p.mul_(1.5)
        now = net(x)
    lm.unmerge(net)
    torch.testing.assert_close(now, net(x))
    assert not torch.allclose(now, merged)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_built_or_copied_in_inference_mode_merges(kind):
    with torch.inference_mode():
        net, x = model(kind)
        merged, apart = outputs(net, x)
        torch.testing.assert_close(merged, apart)
        other = copy.deepcopy(net)
        torch.testing.assert_close(other(x), merged)
    net, x = model(kind)
    with torch.inference_mode():
        merged, apart = outputs(copy.deepcopy(net), x)
    torch.testing.assert_close(merged, apart)


def test_what_a_hook_on_the_base_does_survives_a_merge():
    net, x = model()
    plain, _ = outputs(net, x)
    lm.unmerge(net)
    net[0].base.register_forward_hook(lambda module, args, y: y + 1)
    merged, apart = outputs(net, x)
    torch.testing.assert_close(merged, apart)
    assert not torch.allclose(merged, plain)
    with pytest.raises(ValueError, match="'0' has forward hooks"):
        lm.merge(net, keep_base=False)


class Masked(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


class Packed(nn.Linear):
    """A base that keeps half of W and makes it dense on demand."""

    def dequantize(self):
        return self.weight * 2

    def forward(self, x):
        return nn.functional.linear(x, self.dequantize(), self.bias)


def test_a_subclass_with_a_forward_of_its_own_is_refused_unless_it_tells_its_weight():
    net = nn.Sequential(Masked(6, 4))
    with pytest.raises(TypeError, match=r"Masked has a forward of its own.*layer '0'"):
        lm.attach(net, ["0"], 2, 5)
    assert net[0].weight.requires_grad
    net, x = model(base=Packed(6, 4))
    merged, apart = outputs(net, x)
    torch.testing.assert_close(merged, apart)
    lm.merge(net, keep_base=False)
    torch.testing.assert_close(net(x), apart)
    assert type(net[0]) is nn.Linear


def test_a_final_merge_inside_disabled_loses_nothing():
    net, x = model()
    _, apart = outputs(net, x)
    with lm.disabled(net), pytest.raises(ValueError, match="switched off"):
        lm.merge(net, keep_base=False)
    torch.testing.assert_close(net(x), apart)


@pytest.mark.parametrize("dtype, value", [(torch.float32, float("nan")), (torch.float16, 3e4)])
def test_a_sum_that_is_not_finite_is_told_and_never_made_final(dtype, value):
    net, _ = model()
    net.to(dtype)
    with torch.no_grad():
        net[0].lora_A.fill_(value)
        net[0].lora_B.fill_(value)
    with pytest.warns(UserWarning, match="NaN or infinite"):
        lm.merge(net)
    before = net[0]
    with pytest.raises(ValueError, match="'0' would hold NaN or infinite"):
        lm.merge(net, keep_base=False)
    assert net[0] is before


def test_a_merged_model_maps_over_stacked_factors():
    net, x = model()
    lm.merge(net)
    stacked = torch.stack([net[0].lora_B.detach() * k for k in (1, 2, 3)])

    def call(B):
        return torch.func.functional_call(net, {"0.lora_B": B}, (x,))

    with torch.no_grad():
        many = torch.vmap(call)(stacked)
        one = net(x)
        for k, y in enumerate(many, 1):
            net[0].lora_B.copy_(stacked[0] * k)
            torch.testing.assert_close(net(x), y)
    torch.testing.assert_close(many[0], one)


def test_compiled_with_one_graph_a_merged_model_follows_its_factors():
    net, x = model()
    lm.merge(net)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with torch.no_grad():
        first = compiled(x)
        net[0].lora_B.data += 1
        second = compiled(x)
        lm.unmerge(net)
        torch.testing.assert_close(second, net(x))
    assert not torch.allclose(first, second)
