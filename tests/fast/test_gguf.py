"""GGUF by hand: bytes that are written down, what damage says, and an adapter's names and rows."""

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini import adapters, gguf_file, llama
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear

WRITTEN = (  # one text, one whole number, one float; a tensor (2, 3) of float32
    b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    + struct.pack("<Q", 1) + b"a" + struct.pack("<IQ", 8, 2) + b"hi"
    + struct.pack("<Q", 1) + b"b" + struct.pack("<II", 4, 7)
    + struct.pack("<Q", 1) + b"c" + struct.pack("<If", 6, 0.5)
    + struct.pack("<Q", 1) + b"t" + struct.pack("<IQQIQ", 2, 3, 2, 0, 0))
T = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_small_file_is_these_bytes():
    data = gguf_file.to_bytes({"a": "hi", "b": 7, "c": 0.5}, {"t": T})
    assert data.startswith(WRITTEN)
    at = -(-len(WRITTEN) // 32) * 32
    assert data[len(WRITTEN):at] == bytes(at - len(WRITTEN))
    assert data[at:at + 24] == T.tobytes() and len(data) == at + 32


def test_what_is_written_is_read_and_every_tensor_begins_on_a_multiple_of_32(tmp_path):
    tensors = {"x": T, "odd": np.ones((1, 5), np.float16), "flat": T.reshape(6)[::2],
               "big": T.astype(">f4"), "turned": T.T}
    values = {"general.name": "n\u00e4me", "zero": 0, "most": 2**32 - 1, "minus": -1.25}
    data = gguf_file.to_bytes(values, tensors)
    (tmp_path / "f").write_bytes(data)
    found, stored = gguf_file.read(tmp_path / "f")
    assert found == values and list(stored) == list(tensors)
    for name, array in tensors.items():
        wanted = array.astype(array.dtype.newbyteorder("<"))
        assert stored[name].shape == array.shape
        assert stored[name].kind == ("F16" if name == "odd" else "F32")
        assert stored[name].data.tobytes() == wanted.tobytes()
        assert data.find(wanted.tobytes()) % 32 == 0


def test_lists_and_all_numbers_are_read(tmp_path):
    def pair(key, kind, data):
        return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + data
    text = struct.pack("<Q", 1) + b"x"
    pairs = [pair(b"texts", 9, struct.pack("<IQ", 8, 2) + text * 2),
             pair(b"bytes", 9, struct.pack("<IQ3b", 1, 3, 1, -2, 3)),
             pair(b"nested", 9, struct.pack("<IQIQ2h", 9, 1, 3, 2, -1, 5)),
             pair(b"yes", 7, b"\1"), pair(b"wide", 10, struct.pack("<Q", 2**40)),
             pair(b"double", 12, struct.pack("<d", 0.1)),
             pair(b"signed", 11, struct.pack("<q", -9))]
    (tmp_path / "f").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    assert gguf_file.read(tmp_path / "f") == ({
        "texts": ["x", "x"], "bytes": [1, -2, 3], "nested": [[-1, 5]], "yes": True, "wide": 2**40,
        "double": 0.1, "signed": -9}, {})


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    data = gguf_file.to_bytes({"a": "hi", "b": 7, "c": 0.5}, {"t": T})
    for length in range(len(WRITTEN) + 24):
        (tmp_path / "f").write_bytes(data[:length])
        with pytest.raises(ValueError, match="is cut short" if length >= 4 else "short|no GGUF"):
            gguf_file.read(tmp_path / "f")


@pytest.mark.parametrize("change, said", [
    (lambda d: b"GGML" + d[4:], "is no GGUF file of version 3"),
    (lambda d: d[:4] + struct.pack("<I", 2) + d[8:], "is no GGUF file of version 3"),
    (lambda d: d[:8] + struct.pack("<Q", 2**60) + d[16:], "is cut short|holds what"),
    (lambda d: d.replace(struct.pack("<IQQI", 2, 3, 2, 0), struct.pack("<IQQI", 2, 3, 2, 14)),
     "'t' is of kind 14; read are F32, F16, Q4_1, Q8_0"),
    (lambda d: d.replace(struct.pack("<IQQI", 2, 3, 2, 0), struct.pack("<IQQI", 2, 2**62, 2, 0)),
     "is cut short"),
    (lambda d: d.replace(struct.pack("<IQQI", 2, 3, 2, 0), struct.pack("<IQQI", 2, 3, 2, 3)),
     "'t' has rows of 3, no multiple of 32"),
    (lambda d: d.replace(struct.pack("<IQ", 8, 2) + b"hi", struct.pack("<IQ", 8, 2) + b"\xff\xff"),
     "holds what is no text"),
    (lambda d: d.replace(struct.pack("<II", 4, 7), struct.pack("<II", 44, 7)),
     "a value of kind 44"),
], ids=range(8))
def test_damage_is_said(tmp_path, change, said):
    data = gguf_file.to_bytes({"a": "hi", "b": 7, "c": 0.5}, {"t": T})
    assert change(data) != data
    (tmp_path / "f").write_bytes(change(data))
    with pytest.raises(ValueError, match=said):
        gguf_file.read(tmp_path / "f")


@pytest.mark.parametrize("values, tensors, error, said", [
    ({"a": 2**32}, {}, ValueError, "from 0 to 2\\^32 - 1, got 4294967296"),
    ({"a": True}, {}, TypeError, "expected a text, an int or a float, got True"),
    ({}, {"t": T.astype(np.int32)}, TypeError, "expected float32 or float16, got int32"),
])
def test_what_can_not_be_written_is_refused(values, tensors, error, said):
    with pytest.raises(error, match=said):
        gguf_file.to_bytes(values, tensors)


# The rows of queries and keys


def test_halves_of_a_head_are_interleaved_as_on_paper_and_back():
    rows = np.arange(12)[:, None] * np.ones((1, 2), int)
    assert llama.interleaved(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert llama.interleaved(torch.tensor(rows), 1)[:, 1].tolist() == [0, 6, 1, 7, 2, 8, 3, 9, 4,
                                                                      10, 5, 11]
    for heads in (1, 2, 3):
        back = llama.in_halves(llama.interleaved(torch.tensor(rows), heads), heads)
        assert torch.equal(back, torch.tensor(rows))


def test_turned_in_pairs_or_in_halves_the_scores_are_the_same():
    """Rotary positions both ways: the products of queries and keys agree, once rows moved along."""
    heads, d, n = 2, 6, 5
    torch.manual_seed(0)
    Q, K = (torch.randn(heads * d, 4, dtype=torch.float64) for _ in range(2))
    x = torch.randn(n, 4, dtype=torch.float64)
    angle = torch.arange(n)[:, None] * 10.0 ** -torch.arange(d // 2)  # (n, d / 2)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def turned(W, first, second):
        y = (x @ W.T).view(n, heads, d)
        a, b = y[..., first], y[..., second]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
    halves, pairs = (slice(d // 2), slice(d // 2, d)), (slice(0, d, 2), slice(1, d, 2))
    scores = torch.einsum("ihd,jhd->hij", turned(Q, *halves), turned(K, *halves))
    moved = [llama.interleaved(W, heads) for W in (Q, K)]
    theirs = torch.einsum("ihd,jhd->hij", *(turned(W, *pairs) for W in moved))
    unmoved = torch.einsum("ihd,jhd->hij", *(turned(W, *pairs) for W in (Q, K)))
    torch.testing.assert_close(theirs, scores)
    assert (unmoved - scores).abs().max() > 0.1


# An adapter for llama.cpp


class Llama(nn.Module):
    """A Llama's layers by name, not to be called: heads of `size` rows, kv of them for keys."""

    def __init__(self, heads, kv, size, d, ff, kind="llama"):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(model_type=kind, num_attention_heads=heads,
                                      num_key_value_heads=kv)
        sizes = {"q_proj": (heads * size, d), "k_proj": (kv * size, d), "v_proj": (kv * size, d),
                 "o_proj": (d, heads * size)}
        wide = {"gate_proj": (ff, d), "up_proj": (ff, d), "down_proj": (d, ff)}

        def layers(sizes):
            return nn.ModuleDict({name: nn.Linear(d_in, d_out, bias=False)
                                  for name, (d_out, d_in) in sizes.items()})
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(
            nn.ModuleDict({"self_attn": layers(sizes), "mlp": layers(wide)}) for _ in range(2))
        self.lm_head = nn.Linear(d, 7, bias=False)


SHAPES = [(3, 1, 4, 10, 14), (4, 2, 6, 16, 9)]
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}


def tuned(shape=SHAPES[0], targets="all-linear", **options):
    model = Llama(*shape)
    lm.attach(model, targets, 2, 5, **{"exclude": "lm_head"} | options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return model


def written(folder, model):
    """(values, {name: array}) of the adapter.gguf that is saved."""
    assert adapters.save(model, folder, format="gguf") == folder
    values, stored = gguf_file.read(folder / "adapter.gguf")
    return values, {n: s.data.view(np.float32).reshape(s.shape) for n, s in stored.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_factor_is_there_under_its_name_and_rows_are_turned_by_hand(tmp_path, shape):
    model = tuned(shape)
    values, arrays = written(tmp_path, model)
    assert values == {"general.architecture": "llama", "general.type": "adapter",
                      "adapter.type": "lora", "adapter.lora.alpha": 5.0}
    heads, kv, size = shape[:3]
    assert len(arrays) == 2 * 2 * 7
    for name, array in arrays.items():
        _, block, leaf, weight, factor = name.split(".")
        layer = model.model.layers[int(block)].get_submodule(NAMES[leaf])
        wanted = getattr(layer, {"lora_a": "lora_A", "lora_b": "lora_B"}[factor]).detach()
        if factor == "lora_b" and leaf in ("attn_q", "attn_k"):
            order = [h * size + half * (size // 2) + i
                     for h in range(heads if leaf == "attn_q" else kv)
                     for i in range(size // 2) for half in range(2)]
            assert order != sorted(order)
            wanted = wanted[order]
        assert weight == "weight" and np.array_equal(array, wanted.numpy())
    assert list(tmp_path.iterdir()) == [tmp_path / "adapter.gguf"]


@pytest.mark.parametrize("kind", [lm.LoRALinear, LoRAFALinear, PiSSALinear])
@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_over_rank_of_the_file_gives_the_update(tmp_path, kind, rslora):
    model = tuned(layer=kind, rslora=rslora)
    values, arrays = written(tmp_path, model)
    layer, stem = model.model.layers[1].mlp.up_proj, "blk.1.ffn_up.weight."
    A, B = arrays[stem + "lora_a"], arrays[stem + "lora_b"]
    assert len(A) == (4 if kind is PiSSALinear else 2)
    found = torch.from_numpy(values["adapter.lora.alpha"] / len(A) * B @ A)
    merged = found + layer.base.weight.detach()
    torch.testing.assert_close(merged, layer.weight.detach(), rtol=1e-4, atol=1e-5)


def test_ranks_may_differ_by_layer_and_names_may_lack_the_models(tmp_path):
    model = tuned(rank_pattern={"up_proj": 3})
    values, arrays = written(tmp_path, model)
    assert values["adapter.lora.alpha"] == 5
    assert arrays["blk.0.ffn_up.weight.lora_a"].shape == (3, 10)
    inner = model.model
    inner.config = model.config
    lm.detach(model)
    lm.attach(inner, "q_proj", 2, 5)
    assert "blk.1.attn_q.weight.lora_b" in written(tmp_path / "inner", inner)[1]


def nan(model):
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.lora_A[0, 0] = torch.nan
    return model


REFUSED = {
    "DoRA": (lambda: tuned(layer=DoRALinear), "hold no DoRA .'model.layers.0"),
    "a copy": (lambda: tuned(targets="q_proj", modules_to_save=["lm_head"], exclude=()),
               "no trained copies.*lm_head"),
    "two alphas": (lambda: tuned(alpha_pattern={"up_proj": 7.5}),
                   "one alpha.* is 5 in .*q_proj', 7.5 in .*layers.0.mlp.up_proj'"),
    "ranks with rslora": (lambda: tuned(rslora=True, rank_pattern={"up_proj": 3}), "one rank, too"),
    "the head": (lambda: tuned(targets=["lm_head", "q_proj"], exclude=()),
                 "no name for 'lm_head'.*self_attn.q_proj"),
    "another kind": (lambda: tuned((*SHAPES[0], "gpt2")), "model_type 'llama'.*this one is 'gpt2'"),
    "NaN": (lambda: nan(tuned()), "'blk.0.ffn_up.weight.lora_a' holds NaN"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_llama_cpp_can_not_hold_is_refused_and_nothing_is_written(tmp_path, what):
    make, said = REFUSED[what]
    with pytest.raises(ValueError, match=said):
        adapters.save(make(), tmp_path / "f", format="gguf")
    assert not (tmp_path / "f").exists()


def test_a_strength_and_a_model_without_a_config_are_refused(tmp_path):
    model = tuned()
    lm.set_strength(model, 0.5)
    with pytest.raises(ValueError, match="strength of the adapter is 0.5"):
        adapters.save(model, tmp_path, format="gguf")
    lm.set_strength(model, 1)
    del model.config
    with pytest.raises(ValueError, match="this one is 'none'"):
        adapters.save(model, tmp_path, format="gguf")
    with pytest.raises(ValueError, match="'peft' or 'gguf', got 'onnx'"):
        adapters.save(model, tmp_path, format="onnx")


def test_a_write_that_fails_leaves_the_file_from_before(tmp_path, monkeypatch):
    adapters.save(tuned(), tmp_path, format="gguf")
    before = (tmp_path / "adapter.gguf").read_bytes()
    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda p, d: (real(p, d[:50]), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        adapters.save(tuned(SHAPES[1]), tmp_path, format="gguf")
    assert (tmp_path / "adapter.gguf").read_bytes() == before
