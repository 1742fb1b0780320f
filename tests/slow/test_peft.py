"""The same computation in Hugging Face PEFT: outputs, gradients, merge, rsLoRA, and counts."""

import copy

import peft
import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini.variants import PiSSALinear

RANK, ALPHA = 3, 8.0


def pair(rslora, dtype=torch.float64):
    """One base, adapted here and by PEFT, with the same random factors."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5)).to(dtype)
    ours = copy.deepcopy(base)
    lm.attach(ours, ["0", "2"], RANK, ALPHA, rslora=rslora)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0", "2"],
                             use_rslora=rslora, lora_dropout=0.0)
    theirs = peft.get_peft_model(base, config)
    for i in (0, 2):
        layer = theirs.base_model.model[i]
        with torch.no_grad():
            ours[i].lora_B.normal_()
            layer.lora_A["default"].weight.copy_(ours[i].lora_A)
            layer.lora_B["default"].weight.copy_(ours[i].lora_B)
    return ours, theirs


@pytest.mark.parametrize("rslora", [False, True])
def test_outputs_gradients_and_merge_match_peft(rslora):
    ours, theirs = pair(rslora)
    x = torch.randn(4, 7, dtype=torch.float64)
    y, z = ours(x), theirs(x)
    torch.testing.assert_close(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    for i in (0, 2):
        layer = theirs.base_model.model[i]
        torch.testing.assert_close(ours[i].lora_A.grad, layer.lora_A["default"].weight.grad)
        torch.testing.assert_close(ours[i].lora_B.grad, layer.lora_B["default"].weight.grad)
        torch.testing.assert_close(ours[i].update(), layer.get_delta_weight("default"))
    lm.merge(ours, keep_base=False)
    merged = theirs.merge_and_unload()
    for i in (0, 2):
        assert type(ours[i]) is nn.Linear
        torch.testing.assert_close(ours[i].weight, merged[i].weight)


def test_trainable_count_and_factor_dtype_match_peft():
    ours, theirs = pair(False, torch.bfloat16)
    assert lm.trainable_parameters(ours)[1] == theirs.get_nb_trainable_parameters()[0]
    assert ours[0].lora_A.dtype == theirs.base_model.model[0].lora_A["default"].weight.dtype


def test_A_starts_from_the_distribution_that_peft_draws_from():
    torch.manual_seed(0)
    ours = lm.LoRALinear(nn.Linear(300, 40), 20, 8).lora_A
    model = nn.Sequential(nn.Linear(300, 40))
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=20, target_modules=["0"]))
    A = theirs.base_model.model[0].lora_A["default"].weight
    for statistic in (lambda t: t.std(), lambda t: t.abs().max()):
        assert statistic(ours).item() == pytest.approx(statistic(A).item(), rel=0.03)


@pytest.mark.parametrize("d_in, d_out", [(7, 5), (4, 9)])
def test_pissa_with_dropout_matches_peft_in_training(d_in, d_out):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(d_in, d_out))
    ours, x = copy.deepcopy(base), torch.randn(6, d_in)
    lm.attach(ours, ["0"], RANK, ALPHA, dropout=0.4, layer=PiSSALinear)
    theirs = peft.get_peft_model(base, peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.4, target_modules=["0"],
        init_lora_weights="pissa"))
    for mode in (True, False):
        outputs = []
        for model in (ours, theirs):
            torch.manual_seed(1)
            outputs.append(model.train(mode)(x))
        torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
