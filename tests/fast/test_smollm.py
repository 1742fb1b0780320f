"""The language model's loader as far as it goes without the model: folders, sentences, decoding."""

import importlib.util
import struct

import pytest
import torch

from lora_mini.lab import llama_cpp, smollm


@pytest.fixture
def bare(monkeypatch):
    """As if nothing of the extra were installed; fetching would be a mistake."""
    real = importlib.util.find_spec
    lacks = {"transformers", "xllamacpp"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in lacks else real(n))
    monkeypatch.setattr(smollm, "fetched", lambda *_: pytest.fail("it was fetched"))


def test_it_is_kept_beside_the_bets_or_where_one_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path))
    monkeypatch.delenv("LORA_MINI_SMOLLM", raising=False)
    assert smollm.folder() == tmp_path / "smollm"
    monkeypatch.setenv("LORA_MINI_SMOLLM", str(tmp_path / "elsewhere"))
    assert smollm.folder() == tmp_path / "elsewhere"


def test_missing_packages_are_named_in_a_sentence_before_anything_is_fetched(bare):
    with pytest.raises(ImportError) as raised:
        smollm.load()
    assert str(raised.value) == (
        "the language model needs transformers, not installed here: python3 start.py llm "
        'adds it (or: pip install -e ".[llm]")')


@pytest.mark.parametrize("wrong, said", [
    ({"dtype": torch.int8}, "float32, float16 or bfloat16 of torch, got torch.int8"),
    ({"dtype": "float16"}, "of torch, got 'float16'"),
    ({"bits": 8}, "bits must be 4 or None, got 8")])
def test_what_it_can_not_be_loaded_as_is_said_first(bare, wrong, said):
    with pytest.raises(ValueError, match=said):
        smollm.load(**wrong)


def test_eight_bits_on_paper():
    packed = b"".join(struct.pack("<e32b", d, *range(-16, 16)) for d in (0.5, -2))
    rows = torch.tensor(list(packed), dtype=torch.uint8).view(1, 68)
    found = smollm._weights(rows, "Q8_0")
    assert found.tolist() == [[n / 2 for n in range(-16, 16)] + [-2 * n for n in range(-16, 16)]]
    with pytest.raises(ValueError, match="expected F32, Q4_1 or Q8_0, got F16"):
        smollm._weights(rows, "F16")


def test_without_llama_cpp_pytorch_talks_and_a_sentence_says_so(bare, monkeypatch, capsys):
    monkeypatch.setattr(llama_cpp._Torch, "__init__", lambda *_: None)
    monkeypatch.setattr(llama_cpp._Torch, "say", lambda self, messages, n: (messages[0], n, True))
    talker = llama_cpp.Talker("some.gguf")
    assert talker.engine == "torch" and talker.speed is None is talker.cut
    assert talker.say("Hello", 3) == {"role": "user", "content": "Hello"} and talker.speed > 0
    assert talker.cut is True
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "xllamacpp is not installed, so PyTorch talks" in said
    assert "start.py llm" in said


@pytest.mark.parametrize("cut, end", [(False, ""), (True, " (cut)")])
def test_the_box_answers_what_was_typed_and_says_where_it_was_cut(cut, end):
    talker = type("Talker", (), {"say": lambda self, said, n: f"<{said}> {n}", "cut": cut})()
    widget, reply = llama_cpp.box(talker, 7)
    assert reply.value == "Type a question, then click Ask."
    row = widget.children[0]
    row.children[0].value = " why "
    row.children[1].click()
    assert reply.value == "&lt;why&gt; 7" + end
