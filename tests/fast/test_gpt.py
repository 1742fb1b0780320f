"""The GPT against PyTorch's own attention and encoder layer; its cache against reading anew."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lora_mini as lm
from lora_mini.world import text, town
from lora_mini.world.base import load_base
from lora_mini.world.gpt import GPT, Attention, Config

SMALL = Config(vocabulary=11, context=12, d_model=12, layers=2, heads=3, end=1)


def made(config=SMALL, seed=0):
    """A model with biases away from zero, so that a forgotten one shows."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def prompts(rows=4, length=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, SMALL.vocabulary, (rows, length), generator=generator)


def copied(into, attention):
    """PyTorch's fused projections, filled with our separate ones."""
    ours = (attention.q_proj, attention.k_proj, attention.v_proj)
    with torch.no_grad():
        into.in_proj_weight.copy_(torch.cat([p.weight for p in ours]))
        into.in_proj_bias.copy_(torch.cat([p.bias for p in ours]))
    into.out_proj.load_state_dict(attention.o_proj.state_dict())


def test_attention_equals_torch_multihead_attention_on_copied_weights():
    attention = made().blocks[0].attention
    oracle = nn.MultiheadAttention(12, 3, batch_first=True)
    copied(oracle, attention)
    x = torch.randn(4, 7, 12)
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(attention(x)[0], oracle(x, x, x, attn_mask=causal)[0])


def test_attention_and_its_gradients_equal_scaled_dot_product_attention():
    torch.manual_seed(0)
    attention = Attention(SMALL).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    q, k, v = (p(x).unflatten(2, (3, 4)).transpose(1, 2)
               for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    oracle = attention.o_proj(heads.transpose(1, 2).flatten(2))
    y, (keys, values) = attention(x)
    torch.testing.assert_close(y, oracle)
    torch.testing.assert_close((keys, values), (k, v))
    push = torch.randn_like(y)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, push)[0] for out in (y, oracle)))


def test_a_block_equals_torch_transformer_encoder_layer_on_copied_weights():
    block = made().blocks[1]
    oracle = nn.TransformerEncoderLayer(12, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
    copied(oracle.self_attn, block.attention)
    for theirs, ours in ((oracle.norm1, block.norm_1), (oracle.norm2, block.norm_2),
                         (oracle.linear1, block.up_proj), (oracle.linear2, block.down_proj)):
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 7, 12)
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(block(x)[0], oracle(x, src_mask=causal))


def test_logits_equal_the_parts_put_together_by_hand():
    model, tokens = made(), prompts()
    x = torch.stack([model.embed.weight[row] + model.place.weight[:5] for row in tokens])
    for block in model.blocks:
        x = block(x)[0]
    logits = F.layer_norm(x, (12,), model.norm.weight, model.norm.bias) @ model.head.weight.T
    torch.testing.assert_close(model(tokens), logits)


@pytest.mark.parametrize("place", range(6))
def test_changing_a_token_changes_no_earlier_logit_and_every_later_one(place):
    model, tokens = made(), prompts(length=6)
    other = tokens.clone()
    other[:, place] = (tokens[:, place] - 1) % 9 + 2
    changed = (model(tokens) - model(other)).abs().amax(dim=(0, 2)) > 1e-7
    assert changed.tolist() == [False] * place + [True] * (6 - place)


def test_the_parameters_are_those_that_the_shapes_say():
    C, V, T, L = 12, 11, 12, 2
    block = 4 * (C * C + C) + (4 * C * C + 4 * C) + (4 * C * C + C) + 2 * 2 * C
    assert sum(p.numel() for p in GPT(SMALL).parameters()) == 2 * V * C + T * C + L * block + 2 * C


def test_all_linear_takes_six_layers_a_block_and_leaves_the_head():
    model = made()
    names = lm.attach(model, "all-linear", rank=2, alpha=5)
    leaves = Counter(name.rpartition(".")[2] for name in names)
    assert leaves == dict.fromkeys(
        ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], 2)
    assert model.get_output_embeddings() is model.head and isinstance(model.head, nn.Linear)


def test_reading_in_pieces_with_a_cache_gives_the_logits_of_reading_at_once():
    model, tokens = made(), prompts(length=9)
    cache = []
    pieces = [model(part, cache) for part in tokens.split([4, 1, 3, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))
    assert cache[0][0].shape == (4, 3, 9, 4)  # (B, H, S, D)


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.8}, {"temperature": 1.3, "top_k": 3}], ids=["greedy", "drawn", "top-k"])
def test_generation_with_cache_equals_generation_without(options):
    model, texts = made(), []
    for cache in (True, False):
        generator = torch.Generator().manual_seed(5)
        texts.append(model.generate(prompts(20), 7, cache=cache, generator=generator, **options))
    assert torch.equal(*texts)
    if options:  # another draw is another text
        other = model.generate(prompts(20), 7, generator=torch.Generator().manual_seed(6),
                               **options)
        assert not torch.equal(texts[0], other)


def test_greedy_generation_equals_the_argmax_token_by_token():
    model, seen = made(), prompts(rows=1)
    answer = model.generate(seen, 7)[0].tolist()
    for token in answer:
        assert token == model(seen)[0, -1].argmax()
        seen = torch.cat([seen, torch.tensor([[token]])], dim=1)
    assert len(answer) == 7 or answer[-1] == SMALL.end


def test_drawn_tokens_come_as_often_as_the_tempered_softmax_says():
    model, n = made(), 20000
    prompt = prompts(rows=1)
    logits = model(prompt)[0, -1].detach()
    best = set(logits.topk(4).indices.tolist())
    weights = [math.exp(x / 0.7) if i in best else 0.0 for i, x in enumerate(logits.tolist())]
    drawn = model.generate(prompt.repeat(n, 1), 1, temperature=0.7, top_k=4,
                           generator=torch.Generator().manual_seed(0))
    counts = Counter(drawn[:, 0].tolist())
    for token, weight in enumerate(weights):
        p = weight / sum(weights)
        assert abs(counts[token] / n - p) <= 4 * math.sqrt(p * (1 - p) / n)


def test_top_k_of_one_is_greedy_at_any_temperature():
    model = made()
    assert torch.equal(model.generate(prompts(), 6, temperature=9.0, top_k=1),
                       model.generate(prompts(), 6))


def scripted(lines):
    """A model that answers a row with the line of its first token, whatever else it reads."""
    def forward(tokens, cache=None):
        logits = torch.zeros(*tokens.shape, SMALL.vocabulary)
        for i, row in enumerate(tokens.tolist()):
            logits[i, -1, lines[row[0]][len(row) - 2]] = 1.0
        return logits
    model = made()
    model.forward = forward
    return model


def test_a_row_that_has_ended_is_filled_up_and_generation_stops_when_all_have():
    model = scripted({4: [7, 8, 7, 1, 9, 9], 5: [6, 1, 9, 1, 9, 9]})
    answers = model.generate(torch.tensor([[4, 4], [5, 5]]), 6, cache=False)
    assert answers.tolist() == [[7, 8, 7, 1], [6, 1, 1, 1]]
    answers = model.generate(torch.tensor([[4, 4], [5, 5]]), 3, cache=False)
    assert answers.tolist() == [[7, 8, 7], [6, 1, 1]]


def test_generation_is_in_eval_mode_and_leaves_the_mode_as_it_was():
    model = made()
    lm.attach(model, "all-linear", rank=2, alpha=5, dropout=0.9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_()
    model.train()
    assert torch.equal(model.generate(prompts(), 6), model.generate(prompts(), 6))
    assert model.training
    model.eval()
    model.generate(prompts(), 2)
    assert not model.training


def test_the_base_answers_with_the_best_sentence_with_and_without_cache():
    model, style = load_base("cpu"), town.STYLES["ballad"]
    frames = town.sample_frames(8, 3, "test")
    asked = torch.tensor([text.encode(town.prompt(frame, style)) for frame in frames])
    for cache in (True, False):
        answers = model.generate(asked, 31, cache=cache)
        assert [text.decode(row) for row in answers] == [town.best(f, style) for f in frames]


@pytest.mark.parametrize("options, words", [
    ({"max_new": 8}, r"5 \+ 8 tokens don't fit into the context of 12"),
    ({"max_new": 0}, "max_new must be at least 1, got 0"),
    ({"top_k": 0}, "top_k must be between 1 and 11, got 0"),
    ({"top_k": 12}, "top_k must be between 1 and 11, got 12"),
    ({"temperature": -0.1}, "temperature must be a number, at least 0, got -0.1"),
    ({"temperature": math.nan}, "temperature must be a number, at least 0, got nan"),
    ({"prompt": torch.tensor([2, 3])}, r"prompt must be \(B, P\) with P at least 1, got \(2,\)"),
])
def test_generation_refuses_what_can_not_be(options, words):
    with pytest.raises(ValueError, match=words):
        made().generate(**({"prompt": prompts(), "max_new": 2, "temperature": 1.0} | options))


def test_a_text_longer_than_the_context_is_refused_with_and_without_cache():
    model, cache = made(), []
    with pytest.raises(ValueError, match="at most 12 tokens, got 13"):
        model(prompts(length=13))
    model(prompts(length=12), cache)
    with pytest.raises(ValueError, match="at most 12 tokens, got 13"):
        model(prompts(length=1), cache)


@pytest.mark.parametrize("options, words", [
    ({"heads": 5}, "heads must divide d_model = 12, got 5"), ({"layers": 0}, "at least 1")])
def test_a_size_that_can_not_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Config(**({"vocabulary": 11, "d_model": 12, "heads": 3} | options))


def test_the_context_holds_the_longest_sentence_that_the_town_can_say():
    frames = town.fact_frames(town.register("support", new_facts=1))
    styles = [*town.STYLES.values(), *(town.register(name, 24, order, 864)
                                       for name in town.REGISTERS for order in (False, True))]
    longest = max(len(f"{town.prompt(f, s)} {sentence} <end>".split())
                  for s in styles for f in frames for sentence in town.sentences(f, s))
    assert longest == 36 <= load_base("cpu").config.context
