"""llama.cpp runs the model with our adapter: its log-probabilities beside PyTorch's."""

import json
import statistics
import urllib.request

import gguf
import numpy as np
import pytest
import torch
import transformers

import lora_mini as lm
from lora_mini import adapters, gguf_file, llama
from lora_mini.lab import llama_cpp, smollm

xllamacpp = pytest.importorskip("xllamacpp")
transformers.logging.disable_progress_bar()
PROMPTS = [
    "The capital of France is", "Water boils at", "In the year 1984,", "2 + 3 =",
    "def add(a, b):\n    return", "Once upon a time there was a", "The three primary colours are",
    "Dear Sir or Madam,", "My favourite food is", "The sun rises in the", "A doctor works in a",
    "The quick brown fox", "To be or not to", "She opened the door and", "Python is a",
    "The largest ocean on Earth is the", "Photosynthesis is the process by which",
    "If it rains tomorrow,", "The opposite of hot is", "He was born in"]
EXACT = {  # everything in float32, as in PyTorch
    "cache_type_k": xllamacpp.ggml_type.GGML_TYPE_F32,
    "cache_type_v": xllamacpp.ggml_type.GGML_TYPE_F32,
    "flash_attn_type": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED}
ALLOWED = {  # kind of file: (how llama.cpp runs it, largest gap, mean gap); seen were half of it
    "Q4_1": ({}, 0.9, 0.2),  # what goes in is rounded to eight bits
    "F16": ({}, 0.05, 0.01),
    "F32": (EXACT, 0.002, 0.0005),
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(model with a random adapter on all 210 layers, tokenizer, its adapter.gguf)."""
    model, tokenizer = smollm.load()
    lm.attach(model, "all-linear", rank=4, alpha=6)
    torch.manual_seed(1)
    for parameter in lm.trainable_parameters(model)[0].values():
        torch.nn.init.normal_(parameter, std=0.08)
    folder = tmp_path_factory.mktemp("adapter")
    return model, tokenizer, adapters.save(model, folder, format="gguf") / "adapter.gguf"


@pytest.fixture(scope="module")
def wanted(tuned):
    """{strength: log-probabilities of the next token, for each prompt}, from PyTorch."""
    model, tokenizer, _ = tuned
    found = {}
    for strength in (0, 0.5, 1):
        lm.set_strength(model, strength)
        with torch.no_grad():
            found[strength] = [torch.log_softmax(model(**tokenizer(p, return_tensors="pt"))
                                                 .logits[0, -1], -1) for p in PROMPTS]
    lm.set_strength(model, 1)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{kind: the model's file}: as it came, and its own weights in 16 and in 32 bits."""
    reader, folder = gguf.GGUFReader(smollm.gguf_path()), tmp_path_factory.mktemp("wide")
    paths = {kind: folder / f"{kind}.gguf" for kind in ("F16", "F32")}
    for kind, path in paths.items():
        writer = gguf.GGUFWriter(path, "llama")
        for field in reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name not in (
                    "general.architecture", "general.file_type", "general.quantization_version"):
                inner = field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(field.name, field.contents(), field.types[0], inner)
        for tensor in reader.tensors:
            array = gguf.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, array.astype(np.float16)
                              if kind == "F16" and array.ndim == 2 else array)
        writer.write_header_to_file(), writer.write_kv_data_to_file()
        writer.write_tensors_to_file(), writer.close()
    return paths | {"Q4_1": smollm.gguf_path()}


def gaps(tokenizer, wanted, gguf, adapter=None, strength=1.0, **settings):
    """Of the five likeliest tokens after each prompt: how far llama.cpp is from PyTorch."""
    talker = llama_cpp.Talker(gguf, adapter, strength, **settings)
    assert talker.engine == "llama.cpp"
    found = []
    for prompt, nats in zip(PROMPTS, wanted, strict=True):
        top = talker.nats(tokenizer(prompt).input_ids)
        assert len(top) == 5 and list(top.values()) == sorted(top.values(), reverse=True)
        found += [abs(value - nats[token].item()) for token, value in top.items()]
    return found


@pytest.mark.parametrize("kind", ALLOWED)
@pytest.mark.parametrize("strength", [None, 0, 0.5, 1])
def test_log_probabilities_are_pytorchs_at_every_strength(tuned, wanted, files, kind, strength):
    _, tokenizer, file = tuned
    settings, largest, mean = ALLOWED[kind]
    with_it = {} if strength is None else {"adapter": file, "strength": strength}
    found = gaps(tokenizer, wanted[strength or 0], files[kind], **with_it, **settings)
    print(f"{kind} {strength}: largest {max(found):.4f}, mean {statistics.mean(found):.4f}")
    assert max(found) < largest and statistics.mean(found) < mean


def test_the_adapter_moves_them_far_more_than_that(tuned, wanted, files):
    found = gaps(tuned[1], wanted[0], files["Q4_1"], tuned[2])
    assert statistics.mean(found) > 5 * ALLOWED["Q4_1"][2]


def test_rows_of_queries_and_keys_that_did_not_move_are_seen_even_in_four_bits(tuned, wanted,
                                                                               files, tmp_path):
    model, tokenizer, file = tuned
    values, stored = gguf_file.read(file)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    arrays = {}
    for name, tensor in stored.items():
        arrays[name] = tensor.data.view(np.float32)
        leaf, factor = name.split(".")[2], name.split(".")[-1]
        if leaf in heads and factor == "lora_b":
            arrays[name] = llama.in_halves(arrays[name], heads[leaf])
    (tmp_path / "unmoved.gguf").write_bytes(gguf_file.to_bytes(values, arrays))
    found = gaps(tokenizer, wanted[1], files["Q4_1"], tmp_path / "unmoved.gguf")
    print(f"unmoved: largest {max(found):.4f}, mean {statistics.mean(found):.4f}")
    assert max(found) > ALLOWED["Q4_1"][1] and statistics.mean(found) > ALLOWED["Q4_1"][2]


@pytest.mark.parametrize("options", [{"rslora": True}, {"rank_pattern": {"down_proj": 7}}],
                         ids=["rslora", "two ranks"])
def test_the_scale_of_other_kinds_arrives_too(files, tmp_path, options):
    model, tokenizer = smollm.load()
    lm.attach(model, ["v_proj", "down_proj"], rank=3, alpha=5, **options)
    torch.manual_seed(2)
    for parameter in lm.trainable_parameters(model)[0].values():
        torch.nn.init.normal_(parameter, std=0.1)
    adapters.save(model, tmp_path, format="gguf")
    with torch.no_grad():
        nats = [torch.log_softmax(model(**tokenizer(p, return_tensors="pt")).logits[0, -1], -1)
                for p in PROMPTS]
    settings, largest, _ = ALLOWED["F32"]
    assert max(gaps(tokenizer, nats, files["F32"], tmp_path / "adapter.gguf", **settings)) < largest


def test_the_package_gguf_reads_the_same_tensors_in_our_file(tuned):
    reader = gguf.GGUFReader(tuned[2])
    values, stored = gguf_file.read(tuned[2])
    assert {k: reader.fields[k].contents() for k in values} == values and len(stored) == 420
    for tensor in reader.tensors:
        ours = stored[tensor.name]
        assert list(tensor.shape) == list(ours.shape[::-1]) and tensor.data_offset % 32 == 0
        assert tensor.data.tobytes() == ours.data.tobytes()


def test_we_read_the_models_file_as_the_package_gguf_does():
    reader = gguf.GGUFReader(smollm.gguf_path())
    values, stored = gguf_file.read(smollm.gguf_path())
    assert {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")} == {
        k: values[k] for k in values}
    assert [t.name for t in reader.tensors] == list(stored)
    for tensor in reader.tensors:
        ours = stored[tensor.name]
        assert (ours.kind, *ours.shape) == (tensor.tensor_type.name, *tensor.shape[::-1])
        assert ours.data.tobytes() == tensor.data.tobytes()


def test_our_tokenizer_splits_as_llama_cpp_does(tuned):
    talker = llama_cpp.Talker(smollm.gguf_path())
    address = talker._inner.server.listening_address + "/tokenize"
    for text in [*PROMPTS, "x\u00b2 \u00bd \u0663\u0664 2nd 12345", "  two  spaces \n\n\ttab",
                 "It's we'll", "\u65e5\u672c\u8a9e \U0001f642 \u00e9", "def f(x):\n    return x**2",
                 "<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|> <repo_name>x"]:
        question = {"content": text, "add_special": False, "parse_special": True}
        request = urllib.request.Request(address, json.dumps(question).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            theirs = json.load(answer)["tokens"]
        assert tuned[1](text).input_ids == theirs, text
        assert tuned[1].decode(theirs) == text


def test_pytorch_talks_from_the_same_two_files(tuned, wanted, monkeypatch):
    model, tokenizer, file = tuned
    monkeypatch.setattr(llama_cpp, "_there", lambda: False)
    talker = llama_cpp.Talker(smollm.gguf_path(), file, 0.5)
    assert talker.engine == "torch"
    for prompt, nats in zip(PROMPTS[:5], wanted[0.5], strict=False):
        top = talker.nats(tokenizer(prompt).input_ids)
        assert list(top) == nats.topk(5).indices.tolist()
        assert max(abs(value - nats[token].item()) for token, value in top.items()) < 1e-4
    with pytest.raises(ValueError, match="PyTorch talks for .* only"):
        llama_cpp.Talker(file)


def test_both_engines_answer_an_easy_question_alike(monkeypatch):
    asked = [{"role": "user", "content": "What is 2 plus 3?"}]
    here = llama_cpp.Talker(smollm.gguf_path())
    said = here.say(asked, 20)
    monkeypatch.setattr(llama_cpp, "_there", lambda: False)
    there = llama_cpp.Talker(smollm.gguf_path())
    assert said == there.say("What is 2 plus 3?", 20) and "5" in said
    assert here.cut is there.cut is False
    print(f"tokens a second: llama.cpp {here.speed:.1f}, torch {there.speed:.1f}")
    assert here.speed > 0 and there.speed > 0
    assert len(tokens(here.say(asked, 3))) <= 3 and here.cut
    assert len(tokens(there.say(asked, 3))) <= 3 and there.cut


def tokens(text):
    return smollm.load()[1](text).input_ids


def test_what_llama_cpp_can_not_read_is_a_sentence(tmp_path, tuned):
    (tmp_path / "no.gguf").write_bytes(b"GGUF no more")
    with pytest.raises(ValueError, match="llama.cpp can't read .*no.gguf"):
        llama_cpp.Talker(tmp_path / "no.gguf")
    with pytest.raises(ValueError, match="no.gguf is no GGUF file of version 3"):
        llama_cpp.Talker(smollm.gguf_path(), tmp_path / "no.gguf")
    with pytest.raises(ValueError, match="is no factor"):
        llama_cpp.attach_file(tuned[0], smollm.gguf_path())
