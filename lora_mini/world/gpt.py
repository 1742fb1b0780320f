"""A small GPT by hand: a pre-norm decoder with learned positions (notebook 05 builds it).

Letters for shapes: B rows, T tokens, S tokens that can be seen (past and present), C = d_model,
H heads of D = C / H numbers each, V words. Every projection is an `nn.Linear` of its own, so that
an adapter can take any of them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Config:
    """The size of a model. `end` is the token at which `generate` stops.

    Raises ValueError if the heads don't divide d_model, or a size is below 1.
    """

    vocabulary: int
    context: int = 40
    d_model: int = 64
    layers: int = 2
    heads: int = 4
    end: int = 1

    def __post_init__(self):
        if min(self.vocabulary, self.context, self.d_model, self.layers, self.heads) < 1:
            raise ValueError(f"every size must be at least 1, got {self}")
        if self.d_model % self.heads:
            raise ValueError(f"heads must divide d_model = {self.d_model}, got {self.heads}")


class Attention(nn.Module):
    """Causal attention with H heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config):
        super().__init__()
        C = config.d_model
        self.heads = config.heads
        self.q_proj, self.k_proj = nn.Linear(C, C), nn.Linear(C, C)
        self.v_proj, self.o_proj = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x, past=None):
        """x (B, T, C) -> (B, T, C), and the keys and values (B, H, S, D) seen so far."""
        B, T, C = x.shape
        q, k, v = (project(x).view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for project in (self.q_proj, self.k_proj, self.v_proj))  # (B, H, T, D) each
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)  # (B, H, S, D)
        S = k.shape[2]
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (B, H, T, D) x (B, H, D, S)
        future = torch.ones(T, S, dtype=torch.bool, device=x.device).triu(S - T + 1)
        weights = scores.masked_fill(future, -math.inf).softmax(dim=3)  # (B, H, T, S)
        y = (weights @ v).transpose(1, 2).reshape(B, T, C)  # the heads side by side again
        return self.o_proj(y), (k, v)


class Block(nn.Module):
    """Attention, then a two-layer network on each position; both read a normed x and add to x."""

    def __init__(self, config):
        super().__init__()
        C = config.d_model
        self.norm_1, self.attention = nn.LayerNorm(C), Attention(config)
        self.norm_2 = nn.LayerNorm(C)
        self.up_proj, self.down_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x, past=None):
        """x (B, T, C) -> (B, T, C), and the attention's keys and values."""
        y, seen = self.attention(self.norm_1(x), past)
        x = x + y
        return x + self.down_proj(F.gelu(self.up_proj(self.norm_2(x)))), seen


class GPT(nn.Module):
    """Tokens to logits. The head is not tied to the embedding."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.d_model)
        self.place = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocabulary, bias=False)
        self.apply(_start)

    def get_output_embeddings(self):
        """The head, by the name that Hugging Face models give it."""
        return self.head

    def forward(self, tokens, cache=None):
        """tokens (B, T) -> logits (B, T, V).

        cache: a list, empty at first, in which each block keeps its keys and values; the tokens
        then go on where the last call stopped. Raises ValueError for more than config.context.
        """
        past = cache or [None] * len(self.blocks)
        start = past[0][0].shape[2] if cache else 0
        stop = start + tokens.shape[1]
        if stop > self.config.context:
            raise ValueError(f"the model sees at most {self.config.context} tokens, got {stop}: "
                             "shorten the text, or make a model with a longer context")
        x = self.embed(tokens) + self.place.weight[start:stop]  # (B, T, C) + (T, C)
        seen = []
        for block, before in zip(self.blocks, past, strict=True):
            x, now = block(x, before)
            seen.append(now)
        if cache is not None:
            cache[:] = seen
        return self.head(self.norm(x))

    @torch.no_grad()
    def generate(self, prompt, max_new, *, temperature=0.0, top_k=None, cache=True, generator=None):
        """Go on from prompt (B, P), all of one length, by up to max_new tokens: (B, <= max_new).

        temperature 0 takes the most probable token; above 0 it draws from the softmax of logits /
        temperature, from the top_k most probable tokens only if top_k is given. It draws on the
        CPU, so that one `generator` gives one text on every device. A row that has reached the end
        token is filled up with it. cache=False reads everything anew for each token: the same
        answer, more slowly. Raises ValueError if the text would not fit or an argument can't be.
        """
        self._check(prompt, max_new, temperature, top_k)
        training = self.training
        self.eval()  # an adapter may have dropout
        try:
            text, kept = prompt, [] if cache else None
            ended = torch.zeros(len(prompt), 1, dtype=torch.bool, device=prompt.device)
            for _ in range(max_new):
                logits = self(text[:, -1:] if kept else text, kept)[:, -1]  # (B, V)
                token = _pick(logits.float(), temperature, top_k, generator)  # (B, 1)
                token = token.masked_fill(ended, self.config.end)
                text = torch.cat([text, token], dim=1)
                ended = ended | (token == self.config.end)
                if ended.all():
                    break
        finally:
            self.train(training)
        return text[:, prompt.shape[1]:]

    def _check(self, prompt, max_new, temperature, top_k):
        if prompt.dim() != 2 or prompt.shape[1] < 1:
            raise ValueError(f"prompt must be (B, P) with P at least 1, got {tuple(prompt.shape)}")
        if max_new < 1:
            raise ValueError(f"max_new must be at least 1, got {max_new}")
        if prompt.shape[1] + max_new > self.config.context:
            raise ValueError(f"{prompt.shape[1]} + {max_new} tokens don't fit into the context of "
                             f"{self.config.context}: lower max_new or shorten the prompt")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be a number, at least 0, got {temperature}")
        if top_k is not None and not 1 <= top_k <= self.config.vocabulary:
            raise ValueError(f"top_k must be between 1 and {self.config.vocabulary}, got {top_k}")


def _pick(logits, temperature, top_k, generator):
    """The next token of each row, logits (B, V) -> (B, 1)."""
    if temperature == 0:
        return logits.argmax(dim=1, keepdim=True)
    if top_k is not None:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    chances = (logits / temperature).softmax(dim=1).cpu()
    return torch.multinomial(chances, 1, generator=generator).to(logits.device)


def _start(module):
    """Starting weights: small for embeddings, variance kept by linear layers, biases zero."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
