"""The shapes of known models are those that transformers builds, number for number."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
import transformers
from torch import nn

import lora_mini as lm
from lora_mini.ledger import ledger
from lora_mini.shapes import SHAPES, skeleton

ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
BUILT = {
    "roberta-base": (transformers.RobertaForMaskedLM, transformers.RobertaConfig(**ROBERTA)),
    "roberta-large": (transformers.RobertaForMaskedLM, transformers.RobertaConfig(
        **ROBERTA, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
        intermediate_size=4096)),
    "gpt2-medium": (transformers.GPT2LMHeadModel, transformers.GPT2Config(
        n_embd=1024, n_layer=24, n_head=16)),
    "gpt2-large": (transformers.GPT2LMHeadModel, transformers.GPT2Config(
        n_embd=1280, n_layer=36, n_head=20)),
    "gpt3": (transformers.GPT2LMHeadModel, transformers.GPT2Config(
        n_embd=12288, n_layer=96, n_head=96, n_positions=2048)),
    "deberta-xxl": (transformers.DebertaV2Model, transformers.DebertaV2Config(
        vocab_size=128100, hidden_size=1536, num_hidden_layers=48, num_attention_heads=24,
        intermediate_size=6144, relative_attention=True, position_buckets=256,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        conv_kernel_size=3, position_biased_input=False, type_vocab_size=0)),
}
for name, kv_heads in (("llama2-7b", 32), ("llama3-8b", 8), ("llama-65b", 64), ("llama3-70b", 8)):
    s = SHAPES[name]
    BUILT[name] = transformers.LlamaForCausalLM, transformers.LlamaConfig(
        vocab_size=s.vocabulary, hidden_size=s.d_model, num_hidden_layers=s.layers,
        num_attention_heads=s.d_model // 128, num_key_value_heads=kv_heads, intermediate_size=s.ff)


def matrices(model):
    """How often each (d_out, d_in) occurs in the blocks, fused projections taken apart."""
    found = Counter()
    for name, module in model.named_modules():
        if ".0." not in f".{name}." and not any(f".{i}." in f".{name}." for i in range(1, 100)):
            continue
        if isinstance(module, nn.Linear):
            found[tuple(module.weight.shape)] += 1
        elif type(module).__name__ == "Conv1D":  # GPT-2's are transposed, and q, k, v are one
            d_in, d_out = module.weight.shape
            fused = 3 if name.endswith("c_attn") else 1
            found[d_out // fused, d_in] += fused
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_a_skeleton_has_the_matrices_and_the_numbers_that_transformers_builds(name):
    make, config = BUILT[name]
    with torch.device("meta"):
        theirs = make(config)
    ours = skeleton(name)
    assert matrices(ours) == matrices(theirs)
    assert ledger(ours).parameters == sum(p.numel() for p in theirs.parameters())
    assert all(p.is_meta for p in ours.parameters())


@pytest.mark.parametrize("name, targets, rank, count", [
    ("gpt3", ["q_proj", "v_proj"], 4, 96 * 2 * 2 * 12288 * 4),
    ("llama3-8b", "all-linear", 16, 41_943_040),  # PEFT prints this
    ("gpt2-medium", ["q_proj", "v_proj"], 4, 393_216),
])
def test_what_lora_trains_on_it_is_the_count_by_hand(name, targets, rank, count):
    for four_bits in (False, True):
        model = skeleton(name, four_bits=four_bits)
        lm.attach(model, targets, rank, 8)
        assert ledger(model).trainable == count


def test_four_bits_weigh_what_the_layers_would():
    shape = SHAPES["gpt2-medium"]
    book = ledger(skeleton("gpt2-medium", four_bits=True))
    numbers = shape.layers * sum(m * n for m, n in shape.linear.values())
    biases = shape.layers * sum(m for m, _ in shape.linear.values())
    in_bits = numbers / 2 + numbers / 64 + 4 * numbers / 64 / 256
    assert book.weight_bytes == pytest.approx(in_bits + 2 * (biases + shape.outside), rel=1e-5)
    assert book.parameters == numbers + biases + shape.outside


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such meter")
def test_all_ledgers_together_stay_below_a_gibibyte():
    code = ("import re, resource, sys, lora_mini as lm; from lora_mini.ledger import ledger\n"
            "from lora_mini.shapes import SHAPES, skeleton\n"
            "for name in SHAPES:\n"
            "    for bits in (False, True):\n"
            "        model = skeleton(name, four_bits=bits)\n"
            "        lm.attach(model, 'all-linear', 16, 32)\n"
            "        assert ledger(model).total_bytes > 1e8\n"
            "if sys.platform == 'linux':\n"  # there ru_maxrss begins at that of the parent process
            "    found = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]\n"
            "else:\n"
            "    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "print(found)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) * (1 if sys.platform == "darwin" else 1024) < 2**30


def test_an_unknown_shape_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no shape 'gpt5': take one of roberta-base"):
        skeleton("gpt5")
