"""Talking to a model through llama.cpp, with an adapter of ours; through PyTorch where it lacks.

llama.cpp comes as the package xllamacpp. It keeps the weights in four bits and rounds what goes in
to eight, so its numbers are near PyTorch's, not the same.
"""

import importlib.util
import re
import time
from html import escape
from pathlib import Path

import ipywidgets as widgets
import torch

import lora_mini as lm
from lora_mini import gguf_file
from lora_mini.lab import smollm
from lora_mini.llama import LAYERS, TURNED, in_halves

FACTOR = re.compile(r"blk\.(\d+)\.(\w+)\.weight\.(lora_[ab])")


class Talker:
    """A model in a GGUF file, with an adapter.gguf beside it or without.

    `say` answers, `nats` gives log-probabilities of the next token; `engine` is "llama.cpp" or
    "torch"; of the last `say` `speed` is tokens a second, reading included, `cut` whether its n
    tokens ran out before the answer's end. strength scales the adapter: 1 as trained, 0 the
    base. settings: of llama.cpp's CommonParams. llama.cpp opens a
    port for this machine alone. Raises ValueError for files that can't be read.
    """

    def __init__(self, gguf, adapter=None, strength=1.0, **settings):
        self.engine = "llama.cpp" if _there() else "torch"
        self.speed = self.cut = None
        if self.engine == "llama.cpp":
            self._inner = _LlamaCpp(gguf, adapter, strength, settings)
        else:
            print("xllamacpp is not installed, so PyTorch talks instead: slower, the same model. "
                  "python3 start.py llm adds it.")
            self._inner = _Torch(gguf, adapter, strength)

    def say(self, messages, n=64):
        """The answer, n tokens at most, each the likeliest. messages: a text, or a list of
        {"role": "user" or the like, "content": a text}."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        start = time.perf_counter()
        text, count, self.cut = self._inner.say(messages, n)
        self.speed = count / (time.perf_counter() - start)
        return text

    def nats(self, prompt_ids, n=5):
        """{token: log-probability} of the n likeliest next tokens, likeliest first."""
        return self._inner.nats([int(i) for i in prompt_ids], n)


def box(talker, n):
    """A field for a question, a button, the answer beneath: (the widget, what the answer says)."""
    typed = widgets.Text(placeholder="a question")
    button, reply = widgets.Button(description="Ask"), widgets.HTML()

    def ask(_=None):
        question = typed.value.strip()
        said = talker.say(question, n) if question else "Type a question, then click Ask."
        reply.value = escape(said) + (" (cut)" if question and talker.cut else "")

    button.on_click(ask)
    ask()
    return widgets.VBox([widgets.HBox([typed, button]), reply]), reply


def _there():
    return importlib.util.find_spec("xllamacpp") is not None


class _LlamaCpp:
    def __init__(self, gguf, adapter, strength, settings):
        import xllamacpp

        wanted = xllamacpp.CommonParams()
        wanted.model.path, wanted.n_ctx, wanted.n_parallel = str(gguf), 2048, 1
        wanted.cpuparams.n_threads, wanted.cache_ram_mib = torch.get_num_threads(), 0
        wanted.warmup, wanted.ui, wanted.verbosity = False, False, -1
        for name, value in settings.items():
            setattr(wanted, name, value)
        if adapter is not None:
            gguf_file.read(adapter)  # of what it can't read llama.cpp may die, and we with it
            wanted.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), float(strength))]
        try:
            self.server = xllamacpp.Server(wanted)
        except RuntimeError as error:
            raise ValueError(f"llama.cpp can't read {gguf}" + (
                f" with {adapter}" if adapter else "") + f": {error}") from None

    def say(self, messages, n):
        answer = _checked(self.server.handle_chat_completions(
            {"messages": messages, "max_tokens": n, "temperature": 0}))
        said = answer["choices"][0]
        return (said["message"]["content"], answer["usage"]["completion_tokens"],
                said["finish_reason"] == "length")

    def nats(self, ids, n):
        answer = _checked(self.server.handle_completions(
            {"prompt": ids, "n_predict": 1, "temperature": 0, "logprobs": n,
             "cache_prompt": False}))
        best = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {token["id"]: token["logprob"] for token in best}


def _checked(answer):
    if "error" in answer:
        raise ValueError(f"llama.cpp says: {answer['error']['message']}")
    return answer


class _Torch:
    def __init__(self, gguf, adapter, strength):
        if Path(gguf).resolve() != smollm.gguf_path().resolve():
            raise ValueError(f"PyTorch talks for {smollm.gguf_path()} only, got {gguf}: other "
                             "files need xllamacpp")
        self.model, self.tokenizer = smollm.load()
        if adapter is not None:
            attach_file(self.model, adapter)
            lm.set_strength(self.model, strength)

    @torch.no_grad()
    def say(self, messages, n):
        ids = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = self.model.generate(**ids, max_new_tokens=n, do_sample=False)
        said = out[0, ids["input_ids"].shape[1]:]
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        return text, len(said), said[-1].item() != self.tokenizer.eos_token_id

    @torch.no_grad()
    def nats(self, ids, n):
        logits = self.model(torch.tensor([ids])).logits[0, -1]
        best = torch.log_softmax(logits.float(), -1).topk(n)
        return dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def attach_file(model, path):
    """Put the adapter of an adapter.gguf on a model of Llama's kind; the names of its layers.

    Raises ValueError for a file that isn't one of ours, or as `attach` does.
    """
    values, tensors = gguf_file.read(path)
    config, ours = model.config, {theirs: name for name, theirs in LAYERS.items()}
    heads = dict(zip(TURNED, (config.num_attention_heads, config.num_key_value_heads), strict=True))
    factors, ranks = {}, {}
    for name, stored in tensors.items():
        found = FACTOR.fullmatch(name)
        if not found or found[2] not in ours or stored.kind != "F32":
            raise ValueError(f"{path}: {name!r} ({stored.kind}) is no factor that "
                             "lora_mini.adapters.save(model, folder, format='gguf') writes")
        block, leaf, factor = found.groups()
        where = f"model.layers.{block}.{ours[leaf]}"
        array = torch.from_numpy(stored.data.copy()).view(torch.float32)
        if factor == "lora_b" and leaf in TURNED:
            array = in_halves(array, heads[leaf])
        factors[where, f"lora_{factor[-1].upper()}"] = array
        if factor == "lora_a":
            ranks[where] = len(array)
    rank = next(iter(ranks.values()))
    lm.attach(model, list(ranks), rank, values["adapter.lora.alpha"], rank_pattern=ranks)
    with torch.no_grad():
        for (where, factor), array in factors.items():
            getattr(model.get_submodule(where), factor).copy_(array)
    return list(ranks)
