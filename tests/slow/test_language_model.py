"""The real language model: as transformers reads it, offline, in 16 and 4 bits, with adapters."""

import os
import subprocess
import sys
import warnings

import gguf
import peft
import pytest
import torch
import transformers

import lora_mini as lm
from lora_mini import adapters
from lora_mini.blocks import Q41Linear
from lora_mini.lab import smollm
from lora_mini.llama import LAYERS

transformers.logging.disable_progress_bar()
PLACES = [f"model.layers.{n}.{leaf}" for n in range(30) for leaf in LAYERS]
TEXTS = ["The capital of France is Paris.", "In 1984, two and two were five, and 3 x 7 was 21."]


@pytest.fixture(scope="module")
def loaded():
    return smollm.load()


@pytest.fixture
def model(loaded):
    """The float32 model; what a test attaches comes off again."""
    yield loaded[0]
    for name in adapters.names(loaded[0]):
        adapters.remove(loaded[0], name)


@pytest.fixture(scope="module")
def ids(loaded):
    return [loaded[1](text, return_tensors="pt").input_ids for text in TEXTS]


@torch.no_grad()
def logits(model, ids):
    return torch.cat([model(i).logits[0] for i in ids])


def same(one, other):
    """Equal to rounding, for logits of up to 30."""
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_weights_and_outputs_are_those_of_transformers_own_reader_bit_for_bit(model, ids):
    other = transformers.AutoModelForCausalLM.from_pretrained(
        str(smollm.folder()), gguf_file=smollm.PARCEL.file, dtype=torch.float32).eval()
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys() and len(mine) == 272
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(logits(model, ids), logits(other, ids))
    for field in ("rms_norm_eps", "max_position_embeddings", "eos_token_id", "pad_token_id",
                  "bos_token_id", "num_key_value_heads", "tie_word_embeddings"):
        assert getattr(model.config, field) == getattr(other.config, field), field
    assert model.lm_head.weight is model.model.embed_tokens.weight and not model.training
    assert model.num_parameters() == 134_515_008


def test_it_speaks(loaded):
    model, tokenizer = loaded
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "What is 2 plus 3?"}],
                                          add_generation_prompt=True, return_tensors="pt",
                                          return_dict=True)
    out = model.generate(**asked, max_new_tokens=16, do_sample=False)
    said = tokenizer.decode(out[0, asked["input_ids"].shape[1]:], skip_special_tokens=True)
    assert "5" in said and out[0, -1] == tokenizer.eos_token_id


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_16_bits_it_is_the_rounded_model(model, ids, dtype):
    half, _ = smollm.load(dtype)
    wide = dict(model.named_parameters())
    assert all(torch.equal(p, wide[n].to(dtype)) for n, p in half.named_parameters())
    assert half.config.dtype == dtype and logits(half, ids[:1])[-2].argmax() == \
        logits(model, ids[:1])[-2].argmax()


def test_after_the_file_has_come_nothing_asks_the_network_or_writes(tmp_path):
    os.link(smollm.gguf_path(), tmp_path / smollm.PARCEL.file)
    code = """
import sys
asked = []
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen"):
        asked.append((event, args))
        raise OSError(f"no network here: {event}")
sys.addaudithook(refuse)
from lora_mini.lab import smollm
model, tokenizer = smollm.load()
print(tokenizer("In 1984").input_ids, len(asked))
import socket
try:
    socket.create_connection(("127.0.0.1", 9))
except OSError as error:
    print(error)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=env | {"LORA_MINI_SMOLLM": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[788, 216, 33, 41, 40, 36] 0",
                                             "no network here: socket.getaddrinfo"]
    assert os.listdir(tmp_path) == [smollm.PARCEL.file]


# Four bits


def test_in_four_bits_the_layers_are_the_files_own_blocks(model, ids):
    four, _ = smollm.load(bits=4)
    held = {n: m for n, m in four.named_modules() if isinstance(m, Q41Linear)}
    assert list(held) == PLACES
    for name, layer in held.items():
        assert torch.equal(layer.weight, model.get_submodule(name).weight), name
    stored = {t.name: t for t in gguf.GGUFReader(smollm.gguf_path()).tensors}
    down = stored["blk.7.ffn_down.weight"]  # whose rows lie in one order in both
    assert held["model.layers.7.mlp.down_proj"].blocks.numpy().tobytes() == down.data.tobytes()
    bytes_ = sum(m.blocks.numel() for m in held.values())
    weights = sum(m.in_features * m.out_features for m in held.values())
    assert (bytes_, weights) == (weights * 5 // 8, 106_168_320)
    same(logits(four, ids), logits(model, ids))


def test_what_we_decode_is_ggufs_own_decoding_bit_for_bit():
    from lora_mini import blocks
    for tensor in gguf.GGUFReader(smollm.gguf_path()).tensors[:12]:
        if tensor.tensor_type.name == "Q4_1":
            found = blocks.decode(torch.from_numpy(tensor.data.copy()))
            wanted = gguf.dequantize(tensor.data, tensor.tensor_type)
            assert (found.numpy() == wanted).all()
    W = torch.randn(5, 96)
    theirs = torch.from_numpy(gguf.quantize(W.numpy(), gguf.GGMLQuantizationType.Q4_1))
    assert (blocks.encode(W) != theirs).float().mean() < 0.01  # ties may round either way


def test_an_adapter_learns_the_same_on_four_bits_as_on_their_float32(model, ids):
    four, _ = smollm.load(bits=4)
    grads = []
    for one in (model, four):
        torch.manual_seed(0)
        lm.attach(one, ["q_proj", "down_proj"], rank=4, alpha=8)
        assert lm.trainable_parameters(one)[1] == 30 * 4 * (576 + 576 + 1536 + 576)
        one(ids[1], labels=ids[1]).loss.backward()
        grads.append({n: p.grad for n, p in lm.trainable_parameters(one)[0].items()})
        one.zero_grad()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-6)
    assert max(g.abs().max() for g in grads[0].values()) > 1e-3


# Adapters


def test_all_linear_is_210_layers_without_the_tied_head_as_in_peft(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lm.attach(model, "all-linear", rank=8, alpha=16) == PLACES
    lm.detach(model)
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules="all-linear"))
    names = [n.removeprefix("base_model.model.") for n, m in theirs.named_modules()
             if isinstance(m, peft.tuners.lora.LoraLayer)]
    theirs.unload()
    model.requires_grad_(True)
    assert names == PLACES


def test_the_tied_head_is_taken_only_by_name_with_a_warning_and_the_embedding_stays(model, ids):
    before = model.model.embed_tokens.weight.clone()
    with pytest.warns(UserWarning, match="'lm_head', whose weight is tied to "
                      "'model.embed_tokens.weight', is among the targets"):
        assert lm.attach(model, ["lm_head", "q_proj"], 2, 5)[-1] == "lm_head"
    with pytest.raises(ValueError, match="'lm_head' is tied to 'model.embed_tokens"):
        lm.merge(model, keep_base=False)
    with pytest.raises(ValueError, match="no name for 'lm_head'"):
        adapters.save(model, "nowhere", format="gguf")
    model(ids[0], labels=ids[0]).loss.backward()
    assert model.lm_head.lora_B.grad.abs().max() > 0
    assert model.model.embed_tokens.weight.grad is None
    assert torch.equal(model.model.embed_tokens.weight, before)


def shaken(model, std=0.05):
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model


def test_peft_and_we_read_each_others_adapter_of_it(model, ids, tmp_path):
    bare = logits(model, ids)
    lm.attach(model, "all-linear", rank=4, alpha=6)
    shaken(model)
    ours = logits(model, ids)
    assert (ours - bare).abs().max() > 1
    adapters.save(model, tmp_path / "ours")
    other, _ = smollm.load()
    theirs = peft.PeftModel.from_pretrained(other, tmp_path / "ours").eval()
    same(logits(theirs, ids), ours)
    theirs.save_pretrained(tmp_path / "theirs")
    lm.detach(model)
    assert torch.equal(logits(model, ids), bare)
    report = adapters.load(model, tmp_path / "theirs")
    assert len(report.layers) == 210
    assert torch.equal(logits(model, ids), ours)
