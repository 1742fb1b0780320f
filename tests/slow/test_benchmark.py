"""The benchmark runs, and its arms compute the same: what is timed is one and the same step."""

import subprocess
import sys

import pytest
import torch

import build

sys.path.insert(0, str(build.ROOT / "benchmarks"))
import step  # noqa: E402


@pytest.mark.parametrize("family", ["lora", "dora"])
def test_the_command_prints_a_row_for_the_mlp_and_one_for_the_town(family):
    run = [sys.executable, build.ROOT / "benchmarks" / "step.py", "--quick", "--seconds", "0.1",
           "--family", family]
    said = subprocess.run(run, capture_output=True, text=True, check=True, timeout=300).stdout
    assert "width 64, r 8, tokens 1024" in said and "the town's GPT, r 8" in said
    assert said.count("PEFT/ours") == 2 and "count 0." in said
    if sys.platform == "linux":
        assert "MiB" in said


@pytest.mark.parametrize("family, name", [
    ("lora", "plain"), ("lora", "naive"), ("lora", "PEFT"), ("dora", "plain"), ("dora", "PEFT"),
    ("pissa", "plain"), ("pissa", "PEFT"),
])
def test_the_arms_have_the_same_gradients_as_ours(family, name):
    loss, found = step.mlp_loss(200, 24), {}
    for arm in ("ours", name):
        model = step.FAMILIES[family][arm](step.mlp(24), 3)
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        loss(model).backward()
        found[arm] = [p.grad for p in model.parameters() if p.requires_grad]
    for ours, theirs in zip(found["ours"], found[name], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_predicted_count_is_the_layers_own():
    tokens, d, r = 1024, 64, 8  # folded on both ways: 2 products, 2 folds, 4 thin ones; full: 3
    by_hand = (2 * tokens * d * d + 2 * r * d * d + 4 * tokens * r * d) / (3 * tokens * d * d)
    assert step.predicted(tokens, d, r) == step.predicted(tokens, d, r, "dora") == \
        pytest.approx(by_hand)
    more = step.predicted(tokens, d, r, "pissa") - by_hand  # four folds instead of two
    assert more == pytest.approx(2 * r / (3 * tokens))
