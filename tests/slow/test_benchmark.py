"""The benchmark runs, and its arms compute the same: what is timed is one and the same thing."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import build
from lora_mini import svd

sys.path.insert(0, str(build.ROOT / "benchmarks"))
import arms  # noqa: E402
import cutting  # noqa: E402
import memory  # noqa: E402
import report  # noqa: E402
import serving  # noqa: E402
import subjects  # noqa: E402
import training  # noqa: E402
import turns  # noqa: E402


def test_the_command_measures_every_part_and_the_page_has_a_table_of_each(tmp_path):
    out = tmp_path / "quick.json"
    run = [sys.executable, build.ROOT / "benchmarks" / "run.py", "--quick", "--turns", "2",
           "--profile", "--out", out]
    subprocess.run(run, check=True, timeout=400, capture_output=True)
    found = json.loads(out.read_text("utf-8"))
    assert {row["part"] for row in found["rows"]} == {"growth", *report.PARTS}
    assert all(len(row["ms"]) == 2 and min(row["ms"]) > 0 for row in found["rows"] if "ms" in row)
    report.write(out, tmp_path)
    page = (tmp_path / "benchmark.md").read_text("utf-8")
    assert all(f"## {title}" in page for title, _ in report.PARTS.values())
    assert "A trial run" in page and str(tmp_path) not in page + out.read_text("utf-8")
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000


@pytest.mark.parametrize("subject, rows, tokens", [
    (subjects.MLP(24), 1, 200), (subjects.SmolLM2(small=True), 2, 12)])
def test_all_arms_of_a_family_have_the_same_gradients(subject, rows, tokens):
    names = [n for n in arms.ARMS if "PiSSA" not in n or subject.name == "MLP"]
    models = arms.adapted(subject.make, 3, names)
    assert {"full", "ours", "PEFT", "naive", "ours, four bits", "PEFT, DoRA"} <= set(models)
    assert arms.check_alike(models, subject.loss(rows, tokens)) < 1e-4


def test_an_arm_that_computes_something_else_is_refused():
    subject = subjects.MLP(24)
    models = arms.adapted(subject.make, 3, ["ours", "PEFT"])
    models["ours"][0].alpha *= 2
    with pytest.raises(ValueError, match="PEFT is another step than LoRA"):
        arms.check_alike(models, subject.loss(1, 50))


def test_outputs_that_differ_are_refused():
    y = torch.ones(2, 3)
    assert serving.check_outputs({"a": y, "b": y * 1.0001}, ["a", "b", "absent"]) == 1e-4
    with pytest.raises(ValueError, match="differ by 1.0e-01"):
        serving.check_outputs({"a": y, "b": y * 1.1}, ["a", "b"])


def test_the_counts_of_one_layer_are_those_by_hand():
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(3, 5, requires_grad=True)
    with torch.inference_mode():
        found = turns.counts(lambda: layer(x))
    assert found == {"flop": 2 * 3 * 5 * 7, "moved": 4 * (15 + 35 + 21)}
    assert turns.counts(lambda: layer(x).backward(torch.ones(3, 7)))["flop"] == 3 * 2 * 3 * 5 * 7


def test_our_steps_count_is_the_predicted_one():
    """Inner layers make the predicted products; the first needs no gradient for its input."""
    d, tokens, r = 64, 1024, 8
    rows = {row["arm"]: row for row in training.step("growth", subjects.MLP(d), ["full", "ours"], 1,
                                                     tokens, 2)}
    big, fold, thin = 2 * tokens * d * d, 2 * r * d * d, 4 * tokens * r * d
    assert rows["full"]["flop"] == subjects.LAYERS * 3 * big - big
    assert rows["ours"]["flop"] == subjects.LAYERS * (2 * big + 2 * fold + 2 * thin) - big - fold
    assert training.predicted(tokens, d, r) == (2 * big + 2 * fold + 2 * thin) / (3 * big)


def test_the_ledger_predicts_a_steps_peak():
    for arm in ("full", "ours", "ours, four bits", "PEFT"):
        found = memory.measured(subjects.SmolLM2(small=True), arm, 4, 16)
        assert found["predicted"] == pytest.approx(found["peak"], rel=0.02), arm
    assert "held" not in found  # of others' layers it isn't counted
    found = memory.measured(subjects.SmolLM2(small=True), "ours, four bits", 2, 4)
    assert 5 * found["held"] < found["float32"]


def test_the_known_spectrum_and_its_least_error():
    X, s = cutting.known(40, cutting.SPECTRA["1 / k"])
    np.testing.assert_allclose(np.linalg.svd(X, compute_uv=False), s, rtol=1e-4)
    assert cutting.excess(X, s, svd.truncated_svd(X, 16)) == pytest.approx(1, abs=1e-4)
    assert cutting.excess(X, s, svd.truncated_svd(X[:, ::-1], 16)) > 1.1
