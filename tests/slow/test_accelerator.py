"""On a pretend accelerator, which refuses to mix devices, everything equals the CPU.

The device can't be unregistered, so one other process makes the journey, twice, and reports.
"""

import json
import os
import subprocess
import sys
import tempfile

import pytest


def journey(device):
    """What a lesson does, on one device: train, evaluate, generate, adapt. Numbers only."""
    import torch

    import lora_mini as lm
    from lora_mini.world import measure, text, town, train
    from lora_mini.world.gpt import GPT, Config

    torch.manual_seed(0)
    model = GPT(Config(len(text.VOCABULARY), d_model=16, heads=2, layers=1)).to(device)
    style = town.register("legal", new_words=6, new_facts=20)
    data = text.batch(town.sample_frames(40, 1), style, 2)
    seen = {}

    def look(stage):
        prompts = data.tokens[:3, :text.PROMPT].to(device)
        drawn = model.generate(prompts, 9, temperature=1.0, top_k=5,
                               generator=torch.Generator().manual_seed(3))
        seen[stage] = {
            "losses": train.fit(model, train.rows(data, 8), steps=4, rate=1e-2, warmup=1, clip=1.0,
                                evaluate=lambda m: measure.evaluate(m, style, n=6).total).losses,
            "excess": measure.evaluate(model, style, n=12)[:2],
            "bits": measure.bits_learned(model, style) / 100,
            "greedy": model.generate(prompts, 9).cpu().tolist(),
            "drawn": drawn.cpu().tolist(),
            "uncached": model.generate(prompts, 9, cache=False).cpu().tolist(),
            "devices": sorted({p.device.type for p in model.parameters()})}

    look("full")
    lm.attach(model, "all-linear", rank=2, alpha=5, modules_to_save=["embed"])
    look("lora")
    lm.merge(model)
    seen["merged"] = measure.evaluate(model, style, n=12)[:2]
    return seen


def report():
    """In the other process: both journeys, the loaded base, and what a forgotten tensor does."""
    import pretend_accelerator
    import torch

    import lora_mini as lm
    from lora_mini import adapters, quant
    from lora_mini.lab import bits, inside, trials
    from lora_mini.variants import magnitude_direction
    from lora_mini.world import base, measure, text, town, train

    def trial(device, method="LoRA r=2"):  # what notebooks 06, 07 and 09 do
        _, done = trials.tune(base.load_base(device), method, town.register("medical"), 1e-2,
                              seed=0, steps=6, examples=64, size=8, checkpoints=(3, 6))
        path = [[step, seen.content, seen.chance] for step, seen, _ in done.path]
        return [[*path, [done.step, *done.test[:2]]], done.test.valid, done.trainable]

    def looked(device):  # what notebook 08 does, and the facts of 07
        style, model = town.register("medical"), base.load_base(device)
        tuned, _ = trials.tune(model, "DoRA r=2", style, 1e-2, seed=0, steps=3, examples=64, size=8,
                               checkpoints=(3,))
        moved = sum(float(abs(X).sum()) for X in inside.updates(model, tuned).values())
        test = trials.frames(style, 12, 0, "test")
        turned = magnitude_direction(*(m.blocks[0].up_proj.weight for m in (model, tuned)))
        *_, bits = trials.memorize(model, "LoRA r=2", 8, 1e-2, seed=0, steps=2, size=8)
        placed = inside.placed(tuned, inside.matrices(tuned))
        return [moved, *measure.excess(placed, test)[:2], *turned, bits / 100]

    def named(device):  # what notebook 10 does
        model, outputs = base.load_base(device), []
        tokens = text.batch(town.sample_frames(3), town.STYLES["plain"]).tokens.to(device)

        def seen():
            with torch.no_grad():
                outputs.append(model(tokens).abs().mean().item())
        with tempfile.TemporaryDirectory() as folder:
            for i, name in enumerate("ab"):
                torch.manual_seed(i)
                adapters.add(model, name, ["q_proj", "up_proj"], 2, 5)
                with torch.no_grad():
                    for p in lm.trainable_parameters(model)[0].values():
                        p.add_(torch.randn(p.shape).to(device) / 3)
                seen()
            adapters.save(model, folder)
            outputs.append(str(adapters.load(model, folder, "again")).partition(": ")[2])
            seen()
        with adapters.rows(model, ["a", None, "b"]):
            seen()
        for method, rank in (("concat", None), ("linear", None), ("svd", 3)):
            adapters.blend(model, {"a": 0.7, "b": 0.3}, method, method, rank)
            seen()
        adapters.switch(model, "a")
        seen()
        return [adapters.fingerprint(model), *outputs]

    def four(device):  # what notebook 11 does
        model, style = base.load_base(device), town.register("medical")
        quant.to_four_bits(model)
        test = trials.frames(style, 12, 0, "test")
        seen = [*measure.excess(model, test)[:2]]
        for kind in ("LoRA r=2", "DoRA r=2"):
            tuned, _ = trials.tune(model, kind, style, 1e-2, seed=0, steps=3, examples=64, size=8,
                                   checkpoints=(3,))
            seen += measure.excess(tuned, test)[:2]
            lm.merge(tuned, keep_base=False)
            seen += measure.excess(bits.in_bits(tuned, 4), test)[:2]
        return [adapters.fingerprint(model), *seen]

    model = base.load_base()  # LORA_MINI_DEVICE says where to
    tokens = text.batch(town.sample_frames(2), town.STYLES["plain"]).tokens
    found = {"cpu": journey("cpu"), "pretend": journey(pretend_accelerator.DEVICE),
             "device": str(train.device()), "base": next(model.parameters()).device.type,
             "trials": [trial("cpu"), trial(pretend_accelerator.DEVICE)],
             "named": [named("cpu"), named(pretend_accelerator.DEVICE)],
             "four": [four("cpu"), four(pretend_accelerator.DEVICE)],
             "opened": [looked("cpu"), looked(pretend_accelerator.DEVICE)],
             "variants": {kind: [trial(device, f"{kind} r=2") for device in
                                 ("cpu", pretend_accelerator.DEVICE)] for kind in trials.KINDS}}
    try:
        model(tokens)
        found["caught"] = "nothing"
    except RuntimeError as error:
        found["caught"] = str(error)
    try:
        next(model.parameters()).double()
        found["float64"] = "nothing"
    except TypeError as error:
        found["float64"] = str(error)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found():
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=120,
                         env=os.environ | {"LORA_MINI_DEVICE": "pretend"})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("stage", ["full", "lora"])
def test_training_and_measuring_on_the_accelerator_equal_the_cpu(found, stage):
    there, here = found["pretend"][stage], found["cpu"][stage]
    for key in ("losses", "excess", "bits"):
        assert there[key] == pytest.approx(here[key], rel=1e-5), key


@pytest.mark.parametrize("stage", ["full", "lora"])
def test_generation_on_the_accelerator_equals_the_cpu(found, stage):
    there, here = found["pretend"][stage], found["cpu"][stage]
    assert there["greedy"] == here["greedy"] == there["uncached"]
    assert there["drawn"] == here["drawn"] != here["greedy"]


def test_training_moves_the_model_and_the_merged_adapter_acts_as_apart(found):
    there = found["pretend"]
    assert there["full"]["losses"][0] > there["full"]["losses"][-1] > there["lora"]["losses"][-1]
    assert there["merged"] == pytest.approx(there["lora"]["excess"], rel=1e-5)


def test_all_parameters_are_where_they_were_sent(found):
    assert found["device"] == found["base"] == "pretend"
    assert found["pretend"]["full"]["devices"] == found["pretend"]["lora"]["devices"] == ["pretend"]
    assert found["cpu"]["full"]["devices"] == ["cpu"]


def test_a_trial_on_the_accelerator_equals_the_cpu(found):
    (path, *rest), (path_there, *rest_there) = found["trials"]
    assert [step for step, *_ in path][:2] == [3, 6] and rest == rest_there
    for here, there in zip(path, path_there, strict=True):
        assert there == pytest.approx(here, rel=1e-4)


@pytest.mark.parametrize("kind", ["LoRA+", "rsLoRA", "DoRA", "PiSSA", "LoRA-FA"])
def test_the_variants_on_the_accelerator_equal_the_cpu(found, kind):
    (path, *rest), (path_there, *rest_there) = found["variants"][kind]
    assert rest == rest_there
    for here, there in zip(path, path_there, strict=True):
        assert there == pytest.approx(here, rel=1e-3)


def test_an_update_opened_on_the_accelerator_equals_the_cpu(found):
    here, there = found["opened"]
    assert there == pytest.approx(here, rel=1e-3)


def test_adapters_on_the_accelerator_equal_the_cpu(found):
    here, there = found["named"]
    assert len(here) == 10 and here[-1] == pytest.approx(here[1]) != here[2]
    for one, two in zip(here, there, strict=True):
        assert two == (one if isinstance(one, str) else pytest.approx(one, rel=1e-4))


def test_four_bits_on_the_accelerator_equal_the_cpu(found):
    (print_, *ours), (theirs_, *theirs) = found["four"]
    assert print_ == theirs_ and theirs == pytest.approx(ours, rel=1e-3, abs=1e-5)


def test_a_tensor_left_behind_on_the_cpu_is_caught(found):
    assert "expected all tensors on pretend:0, but one is on the CPU" in found["caught"]


def test_float64_is_refused_as_on_a_macs_gpu(found):
    assert "pretend:0 has no torch.float64" in found["float64"]


if __name__ == "__main__":
    report()
