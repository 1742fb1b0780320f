"""A language model of transformers on the pretend accelerator: taught, asked, saved, in four bits.

As in test_accelerator.py, another process makes the journey on both devices and reports.
"""

import json
import subprocess
import sys

import pytest

KINDS = ("LoRA", "DoRA", "bfloat16", "Q4_1", "NF4")  # the last three: LoRA on such a base
ROWS = [([3, 4, 5, 6, 7, 8 + i], [-100] * 3 + [6, 7, 8 + i]) for i in range(8)] + \
    [([3, 9, 5, 6], [-100] * 2 + [5, 6])] * 3


class Words:
    """All that `tutor.answers` asks of a tokenizer."""

    def batch_decode(self, ids, skip_special_tokens):
        return [" ".join(map(str, row)) for row in ids.cpu().numpy()]


def base(kind, device):
    """A small Llama with a tied head, its layers in four bits where the kind says so."""
    import torch
    import transformers

    from lora_mini import blocks, quant

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=95,
        eos_token_id=96, pad_token_id=0)).eval()
    if kind == "Q4_1":
        quant.to_four_bits(model, layer=blocks.Q41Linear)
    elif kind == "NF4":
        quant.to_four_bits(model)
    return model.to(device, torch.bfloat16 if kind == "bfloat16" else None)


def journey(kind, device, folder):
    """What notebook 15 does, numbers and words: to be equal on both devices."""
    import torch

    import lora_mini as lm
    from lora_mini import adapters
    from lora_mini.audit import audit
    from lora_mini.lab import tutor
    from lora_mini.variants import DoRALinear

    model = base(kind, device)
    torch.manual_seed(1)
    lm.attach(model, "all-linear", rank=4, alpha=8,
              **({"layer": DoRALinear} if kind == "DoRA" else {}))
    seen = tutor.fit(model, ROWS, 1e-2, progress=False).losses
    seen.append(tutor.held_out(model, ROWS))
    said = [tutor.answers(model, Words(), [[3, 4, 5], [9, 8]], most=6), str(audit(model))]
    lm.set_strength(model, 0.5)
    seen.append(tutor.held_out(model, ROWS))
    lm.set_strength(model, 1.0)
    adapters.save(model, folder)
    again = base(kind, device)
    adapters.load(again, folder, "again")
    seen.append(tutor.held_out(again, ROWS))
    lm.merge(again, **({} if kind in ("LoRA", "DoRA") else {"keep_base": False}))
    seen.append(tutor.held_out(again, ROWS))
    return {"seen": seen, "said": said,
            "devices": sorted({p.device.type for p in again.parameters()})}


def report():
    """In the other process: every kind on both devices, and an adapter that changes its device."""
    import tempfile

    import pretend_accelerator

    from lora_mini import adapters
    from lora_mini.lab import tutor

    found = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
            found[kind] = [journey(kind, "cpu", here),
                           journey(kind, pretend_accelerator.DEVICE, there)]
            model = base(kind, "cpu")  # made there, read here
            adapters.load(model, there, "again")
            found[kind].append(tutor.held_out(model, ROWS))
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found():
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_teaching_saving_and_merging_on_the_accelerator_equal_the_cpu(found, kind):
    here, there, moved = found[kind]
    near = 2**-8 if kind == "bfloat16" else 1e-5  # what one rounding in 16 bits may do
    assert there["seen"] == pytest.approx(here["seen"], rel=near)
    assert here["devices"] == ["cpu"] and there["devices"] == ["pretend"]
    assert moved == pytest.approx(there["seen"][-2], rel=near / 10)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_the_audit_on_the_accelerator_equal_the_cpu(found, kind):
    here, there, _ = found[kind]
    assert here["said"] == there["said"] and "no fault found" in here["said"][1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_journey_teaches_something_and_every_stop_counts(found, kind):
    seen = found[kind][0]["seen"]
    assert seen[5] < seen[0] - 0.3 and seen[6] < seen[0]
    assert seen[7] > seen[6] + 0.01  # at half the strength
    assert seen[-2] == pytest.approx(seen[6], abs=1e-5)  # read again: the same
    assert seen[-1] == pytest.approx(seen[6], abs=1e-5 if kind in ("LoRA", "DoRA") else 0.1)


if __name__ == "__main__":
    report()
