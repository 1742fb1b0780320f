"""The loop against one written out; what is measured against sums by hand; the base as shipped."""

import collections
import math
import random
import signal

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini.lab import trials
from lora_mini.world import base, make_base, measure, text, town, train
from lora_mini.world.gpt import GPT, Config
from lora_mini.world.styles import ANY, under

LEGAL = town.register("legal", new_facts=20)
DATA = text.batch(town.sample_frames(24, 1), LEGAL, seed=2)


def small(seed=0):
    torch.manual_seed(seed)
    return GPT(Config(len(text.VOCABULARY), d_model=16, heads=2, layers=1))


def fitted(model, **options):
    return train.fit(model, **({"batches": train.rows(DATA, 6), "steps": 5, "rate": 3e-3,
                                "warmup": 2} | options))


class Fixed(nn.Module):
    """Says the same logits (B, T, V) whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens):
        return self.logits[:len(tokens), :tokens.shape[1]]


def uniform(rows=400, width=40):
    return Fixed(torch.zeros(rows, width, len(text.VOCABULARY)))


def test_the_loss_is_the_mean_over_marked_tokens_by_hand():
    model, tokens, mask = small(), DATA.tokens, DATA.mask
    nats = []
    for row, marks in zip(tokens, mask, strict=True):
        chances = model(row[None]).softmax(dim=2)[0].detach()
        nats += [-math.log(chances[t - 1, row[t]]) for t in range(len(row)) if marks[t]]
    assert train.loss(model, tokens, mask).item() == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_what_is_not_marked_as_a_target_does_not_count():
    torch.manual_seed(0)
    model = Fixed(torch.randn(24, 40, len(text.VOCABULARY)))
    before = train.loss(model, DATA.tokens, DATA.mask)
    unmarked = DATA.mask == 0
    assert unmarked[:, :text.PROMPT].all() and unmarked[:, -1].any()  # prompts, and padding
    other = DATA.tokens.masked_fill(unmarked, 5)
    assert train.loss(model, other, DATA.mask) == before
    other = DATA.tokens.clone()
    other[0, text.PROMPT] = 5  # the first word of a sentence
    assert train.loss(model, other, DATA.mask) != before


@pytest.mark.parametrize("clip", [None, 0.1])
def test_fit_equals_a_loop_with_adamw_written_out(clip):
    model, oracle, losses = small(), small(), []
    draw, rng = train.rows(DATA, 6), random.Random(4)
    adam = torch.optim.AdamW(oracle.parameters(), lr=1.0, weight_decay=0.1, fused=True)
    for rate in (1e-3, 2e-3, 2e-3, 0.505 * 2e-3, 0.01 * 2e-3):  # up to 2e-3, half a cosine down
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        tokens, mask, _ = draw(rng)
        loss = train.loss(oracle, tokens, mask)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(oracle.parameters(), clip)
        adam.step()
        losses.append(loss.item())
    history = fitted(model, rate=2e-3, clip=clip, seed=4, weight_decay=0.1)
    assert history.losses == losses and history.whole
    for ours, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_fused_step_is_adamw_as_the_paper_has_it():
    rate, decay, (b1, b2), eps = 2e-3, 0.1, (0.9, 0.999), 1e-8
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(40, 7))
    adam = torch.optim.AdamW([p], lr=rate, weight_decay=decay, fused=True)
    by_hand, m, v = p.detach().double(), 0, 0
    for t in range(1, 6):  # Loshchilov and Hutter 2019, algorithm 2
        p.grad = torch.randn(40, 7)
        g = p.grad.double()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        adam.step()
        by_hand = by_hand - rate * (m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps)
                                    + decay * by_hand)
    torch.testing.assert_close(p.detach(), by_hand.float())


def test_the_rate_goes_up_in_a_line_and_down_to_a_hundredth():
    rates = [train.rate_at(step, 104, 0.5, 4) for step in range(104)]
    assert rates[:5] == [0.125, 0.25, 0.375, 0.5, 0.5]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.005)
    assert train.rate_at(0, 10, 0.5, 0) == 0.5
    assert train.rate_at(9, 10, 0.5, 20) == 0.25  # a warm-up longer than the run


def test_only_what_is_trainable_moves():
    model = small()
    lm.attach(model, "all-linear", rank=2, alpha=5, modules_to_save=["head"])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fitted(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(lm.trainable_parameters(model)[0]) and len(moved) == 13
    assert all(p.grad is None for p in model.parameters())


def test_a_factor_multiplies_the_rate_of_the_parameters_it_is_for():
    model, oracle = small(), small()
    fitted(model, factor=lambda name: 0.0 if "embed" in name else 1.0)
    oracle.embed.requires_grad_(False)
    fitted(oracle)
    for ours, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(model.head.weight, small().head.weight)


def test_the_same_seed_gives_the_same_history_and_another_another():
    first, again, other = (fitted(small(), seed=seed).losses for seed in (3, 3, 4))
    assert first == again != other
    dropped = []
    for seed in (3, 3, 4):
        model = small()
        lm.attach(model, "all-linear", rank=2, alpha=5, dropout=0.5)
        dropped.append(fitted(model, seed=seed, batches=lambda rng: DATA).losses)
    assert dropped[0] == dropped[1] != dropped[2]  # the same data: only dropout differs


def test_an_interruption_keeps_what_was_done_and_a_model_that_works():
    def batches(rng):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(draw(rng))
        return drawn[-1]
    drawn, draw, model = [], train.rows(DATA, 6), small().eval()
    history = fitted(model, batches=batches)
    assert history.interrupted and not history.whole and len(history.losses) == 3
    assert history.losses == fitted(small()).losses[:3]
    assert not model.training and math.isfinite(measure.evaluate(model, LEGAL, n=3).total)


def test_evaluations_come_each_so_many_steps_and_after_the_last():
    def look(model):
        modes.append(model.training)
        return len(modes) * 10
    modes = []
    history = fitted(small(), steps=7, every=3, evaluate=look)
    assert history.evaluations == [(3, 10), (6, 20), (7, 30)]
    assert history.seconds_per_step == history.seconds / 7 > 0
    assert train.History().seconds_per_step == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_advice(bad):
    model = small()
    nn.init.constant_(model.head.weight, bad)
    with pytest.raises(FloatingPointError, match="nan at step 0, at a rate of 1.5e-03: start again "
                                                 "from a fresh model, with a lower rate"):
        fitted(model)


@pytest.mark.parametrize("options, error, words", [
    ({"steps": 0}, ValueError, "steps must be at least 1 and rate positive, got 0"),
    ({"rate": -1}, ValueError, "got 5 and -1"),
    ({"batches": [DATA]}, TypeError, "batches must be a function of a random.Random.* got list"),
    ({"model": small().requires_grad_(False)}, ValueError, "no trainable parameter"),
])
def test_fit_refuses_what_can_not_be(options, error, words):
    with pytest.raises(error, match=words):
        fitted(**({"model": small()} | options))


def test_rows_are_rows_of_the_data_drawn_without_repeats_and_trimmed():
    made = train.rows(DATA, 6)(random.Random(1))
    wide = nn.functional.pad(made.tokens, (0, DATA.tokens.shape[1] - made.tokens.shape[1]))
    where = [(DATA.tokens == row).all(dim=1).nonzero().item() for row in wide]
    assert len(set(where)) == 6 and (made.tokens[:, -1] != text.PAD).any()
    assert torch.equal(made.log_probability, DATA.log_probability[where])
    assert made.mask.sum() == DATA.mask[where].sum()
    everything = train.rows(DATA, 24)(random.Random(1)).tokens
    assert len(everything.unique(dim=0)) == len(DATA.tokens.unique(dim=0)) == 24
    widths = {train.rows(DATA, 1)(random.Random(i)).tokens.shape[1] for i in range(20)}
    assert len(widths) > 1
    with pytest.raises(ValueError, match="at most the number of rows, 24, got 25"):
        train.rows(DATA, 25)


def test_fresh_batches_are_train_frames_in_every_style():
    draw, rng = train.fresh(town.STYLES.values(), 40), random.Random(0)
    tags, sentences = set(), set()
    for _ in range(5):
        for row in draw(rng).tokens:
            words = text.decode(row).split()
            assert town.split_of(town.Frame(*words[1:7])) == "train"
            tags.add(words[0])
            sentences.add(tuple(words))
    assert tags == {f"<{tag}>" for tag in town.STYLES} and len(sentences) > 190


def test_what_a_uniform_model_pays_is_known():
    """Of the herald's 21.7 tokens on average three are chance, of 0.3, 0.2 and 0.7."""
    model, nat = uniform(), math.log(len(text.VOCABULARY))
    assert measure.total_nats(model, DATA) == pytest.approx(DATA.mask.sum().item() * nat, rel=1e-5)
    model.generate = lambda prompt, max_new: torch.zeros(len(prompt), 1, dtype=torch.long)
    score = measure.evaluate(model, town.STYLES["herald"], n=20, seed=3)
    coins = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.3, 0.2, 0.7))
    assert score.content == pytest.approx(18.7 * nat / 21.7, rel=1e-5)
    assert score.chance == pytest.approx((3 * nat - coins) / 21.7, rel=1e-5)
    assert score.total == pytest.approx(nat - coins / 21.7, rel=1e-5)
    assert score.valid == 0


def test_the_excess_of_the_base_equals_a_sum_sentence_by_sentence():
    model, pair = base.load_base("cpu"), [town.STYLES["deed"], LEGAL]
    said, frames = measure.drawn(pair, 6, seed=7)
    content = chance = tokens = 0
    for frame, style in zip(frames, said, strict=True):
        every = town.sentences(frame, style)
        assert sum(every.values()) == pytest.approx(1)
        for sentence, p in every.items():
            words = [*sentence.split(), "<end>"]
            row = torch.tensor([text.encode(f"{town.prompt(frame, style)} {' '.join(words)}")])
            logs = model(row)[0].log_softmax(dim=1)
            for t in range(len(words)):
                alike = [(other.split() + ["<end>"], q) for other, q in every.items()
                         if (other.split() + ["<end>"])[:t] == words[:t]]
                true = sum(q for other, q in alike if other[t] == words[t]) / sum(
                    q for _, q in alike)
                over = p * (math.log(true) - logs[text.PROMPT + t - 1, row[0, text.PROMPT + t]])
                tokens += p
                if len({other[t] for other, _ in alike}) == 1:
                    content += over.item()
                else:
                    chance += over.item()
    score = measure.evaluate(model, pair, n=6, seed=7)
    assert (score.content, score.chance) == pytest.approx(
        (content / tokens, chance / tokens), rel=1e-4)
    assert score.valid == 0.5  # right in the style that it read, wrong in the register


def test_a_frame_told_twice_as_often_weighs_twice():
    model, style = small(), town.STYLES["fable"]
    one, two = town.sample_frames(2, 5)
    parts = [measure.excess(model, text.sayings([frame], style)).total for frame in (one, two)]
    length = [town.expected_tokens(style)] * 2
    both = measure.excess(model, text.sayings([one, one, two], style)).total
    assert both == pytest.approx((2 * parts[0] * length[0] + parts[1] * length[1])
                                 / (2 * length[0] + length[1]), rel=1e-4)


def test_bits_learned_by_who_knows_nothing_and_by_who_knows_all():
    bits = measure.bits_learned(uniform(), LEGAL)
    assert bits == pytest.approx(20 * (8 - 3 * math.log2(len(text.VOCABULARY))), rel=1e-5)
    asked = text.batch(town.fact_frames(LEGAL, 0, "test"), LEGAL, 0)
    knows = Fixed(50.0 * nn.functional.one_hot(asked.tokens[:, 1:], len(text.VOCABULARY)).float())
    assert measure.bits_learned(knows, LEGAL) == pytest.approx(160)
    with pytest.raises(ValueError, match="the style has no facts"):
        measure.bits_learned(knows, town.REGISTERS["legal"])


def test_device_and_preset_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("LORA_MINI_DEVICE", "meta")
    monkeypatch.delenv("LORA_MINI_PRESET", raising=False)
    assert train.device() == torch.device("meta") and train.preset() == "laptop"
    monkeypatch.setenv("LORA_MINI_DEVICE", "cuda")
    assert train.preset() == "gpu"
    monkeypatch.setenv("LORA_MINI_PRESET", "laptop")
    assert train.preset() == "laptop"
    monkeypatch.setenv("LORA_MINI_PRESET", "huge")
    with pytest.raises(ValueError, match="must be laptop or gpu, got 'huge'"):
        train.preset()


@pytest.mark.parametrize("cuda, mps, expected", [
    (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_without_a_word_the_device_is_the_fastest_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("LORA_MINI_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert train.device().type == expected


def test_the_gpu_preset_computes_in_bfloat16_and_keeps_float32_weights(monkeypatch):
    monkeypatch.setenv("LORA_MINI_PRESET", "gpu")
    seen, model = set(), small()
    model.head.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    history = fitted(model, steps=3)
    assert seen == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    monkeypatch.setenv("LORA_MINI_PRESET", "laptop")
    assert history.losses == pytest.approx(fitted(small(), steps=3).losses, rel=0.01)
    assert history.losses != fitted(small(), steps=3).losses


def test_a_bfloat16_model_trains_and_is_measured():
    model = small().to(torch.bfloat16)
    history = fitted(model, rate=1e-2)
    assert history.losses[-1] < history.losses[0]
    assert train.token_losses(model, DATA.tokens).dtype == torch.float32
    assert math.isfinite(measure.evaluate(model, LEGAL, n=4).total)


def test_no_bar_unless_it_is_asked_for(capfd, monkeypatch):
    fitted(small())
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(train, "tqdm", lambda steps, **options: seen.append(options) or steps)
    seen = []
    fitted(small(), progress=True)
    assert seen[0]["disable"] is False and seen[0]["delay"] == 2
    monkeypatch.setitem(train.sys.modules, "ipykernel", train)
    for value, hidden in (("1", False), ("0", True)):
        monkeypatch.setenv("LORA_MINI_PROGRESS", value)
        fitted(small())
        assert seen[-1]["disable"] is hidden


def test_the_shipped_base_is_small_near_the_floor_and_right():
    every = list(town.STYLES.values())
    score = measure.evaluate(base.load_base("cpu"), every, n=300, seed=2024)
    assert 0 < score.total < 0.05 * town.entropy(every)
    assert 0 < score.content < 0.002 and score.valid > 0.99
    assert base.SHIPPED.stat().st_size < 4e6
    about = base.describe()
    assert about["command"] == base.COMMAND and about["seed"] == "0" and about["torch"]
    assert about["styles"].split() == list(town.STYLES)


def test_the_shipped_base_says_a_valid_sentence_of_some_style_where_none_is_named():
    model, frames = base.load_base("cpu"), town.sample_frames(60, 3, "test")
    asked = under(town.STYLES["plain"], ANY)
    start = torch.tensor([text.encode(town.prompt(frame, asked)) for frame in frames])
    said = [text.decode(row) for row in model.generate(start, 30).tolist()]
    assert all(any(sentence in town.sentences(frame, style) for style in town.STYLES.values())
               for frame, sentence in zip(frames, said, strict=True))


def test_the_shipped_base_has_never_seen_the_registers_but_every_word_of_them():
    words = {word for style in town.STYLES.values() for tag in (style.tag, ANY)
             for frame in town.sample_frames(400, 1)
             for said in (town.best(frame, style), *town.sentences(frame, style))
             for word in f"{town.prompt(frame, under(style, tag))} {said} <end>".split()}
    for name in town.REGISTERS:
        style = town.register(name)
        score = measure.evaluate(base.load_base("cpu"), style, n=40)
        assert score.total > 0.5 and score.content > 0.5 and score.valid < 0.1
        for frame in town.sample_frames(400, 2):
            assert set(f"{town.prompt(frame, style)} {town.best(frame, style)}".split()) <= words


def test_half_of_what_a_base_reads_is_asked_for_under_any():
    drawn = []

    def fit(model, batches, **options):
        rng = random.Random(0)
        drawn.extend(batches(rng).tokens[:, 0].tolist() for _ in range(40))
        return train.History()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_base.train, "fit", fit)
        make_base.make_base(styles=["plain", "fable"], device="cpu")
    tags = collections.Counter(text.VOCABULARY[tag] for batch in drawn for tag in batch)
    assert set(tags) == {"<plain>", "<fable>", "<any>"}
    assert tags["<any>"] / tags.total() == pytest.approx(0.5, abs=0.03)


def test_make_base_writes_what_load_base_reads(tmp_path, capsys):
    made_in = tmp_path / "new" / "narrow.safetensors"
    words = ["--styles", "plain", "--steps", "3", "--seed", "5", "--out", str(made_in)]
    make_base.main(words)
    assert "over the floor of 0.07" in capsys.readouterr().out
    model, history = make_base.make_base(styles=["plain"], seed=5, steps=3, device="cpu")
    assert len(history.losses) == 3
    for name, tensor in base.load_base("cpu", made_in).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert base.describe(made_in)["command"].endswith(" ".join(words))
    assert base.describe(made_in)["styles"] == "plain"


def test_make_base_never_overwrites_the_course_s_own_with_another(capsys):
    with pytest.raises(SystemExit):
        make_base.main(["--styles", "plain"])
    assert "say --out FILE" in capsys.readouterr().err
    with pytest.raises(ValueError, match="among plain, .* got romance"):
        make_base.make_base(styles=["romance"])


def tuned(seed, **options):
    """One short run of the shipped base, as the lessons make several of in a cell."""
    return trials.tune(base.shipped(), "LoRA r=1", LEGAL, 1e-3, seed, steps=6, examples=32,
                       checkpoints=(6,), **options)


def test_the_stop_button_ends_every_run_of_a_cell_and_leaves_no_missing_name(monkeypatch, capsys):
    real, steps = train._step, []

    def stopped(*arguments):
        steps.append(1)
        if len(steps) == 9:  # in the third step of the second run
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(train, "_step", stopped)
    usual = signal.getsignal(signal.SIGINT)
    with train.together() as runs:
        found = {seed: tuned(seed) for seed in range(4)}
    assert not runs.whole and len(steps) == 9
    assert signal.getsignal(signal.SIGINT) is usual
    assert [run.whole for _, run in found.values()] == [True, False, False, False]
    assert "nothing of this cell trains on or is judged" in capsys.readouterr().out
    assert math.isnan(found[3][1].test.total) and found[3][1].path == []
    assert math.isfinite(train.loss(found[3][0], DATA.tokens, DATA.mask).item())
    with train.together() as runs:
        assert tuned(1)[1].whole
    assert runs.whole
    assert capsys.readouterr().out == ""


def test_a_stop_between_two_runs_and_a_second_one(capsys):
    with train.together():
        signal.raise_signal(signal.SIGINT)
        assert not tuned(0)[1].whole
    with pytest.raises(KeyboardInterrupt), train.together():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().out.count("Stopped") == 2


def test_the_town_trains_with_one_thread_and_gives_the_others_back(monkeypatch):
    seen, real, before = [], train._step, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(train, "_step",
                            lambda *a: seen.append(torch.get_num_threads()) or real(*a))
        tuned(0)
        assert torch.get_num_threads() == 2 and set(seen) == {1}
        monkeypatch.setattr(train, "_step", lambda *a: math.nan / 0)
        with pytest.raises(ZeroDivisionError):
            tuned(0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_interrupted_make_base_writes_nothing(tmp_path, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr(train, "_step", stopped)
    with pytest.raises(SystemExit):
        make_base.main(["--out", str(tmp_path / "base.safetensors")])
    assert not list(tmp_path.iterdir())


def test_on_the_gpu_preset_the_reader_s_larger_base_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_MINI_PRESET", "gpu")
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path))
    assert base.load_base("cpu").config.d_model == 64  # not made yet: the shipped one
    base.save_base(small(), base.base_path("gpu"))
    assert base.load_base("cpu").config.d_model == 16
    assert base.base_path("laptop") == base.SHIPPED


def spoiled(tmp_path, spoil):
    path = tmp_path / "base.safetensors"
    path.write_bytes(spoil(base.SHIPPED.read_bytes()))
    return path


@pytest.mark.parametrize("spoil, words", [
    (lambda b: b[:-100], "is damaged .*: make it anew with python -m lora_mini.world.make_base"),
    (lambda b: b"", "is damaged"),
    (lambda b: b[:-100] + bytes([b[-100] ^ 1]) + b[-99:], "are not those that were written"),
    (lambda b: b.replace(text.fingerprint().encode(), b"f" * 16), "fingerprint is ffffffff"),
    (lambda b: b.replace(b'"town":', b'"port":'), "is no base, its metadata lack town"),
    (lambda b: b.replace(b"d_model", b"d_modem"), "config does not fit its numbers.*d_modem"),
    (lambda b: b.replace(b'd_model\\": 64', b'd_model\\": 65'), "config does not fit its numbers"),
])
def test_a_damaged_or_foreign_base_is_refused_with_what_to_do(tmp_path, spoil, words):
    with pytest.raises(ValueError, match=words):
        base.load_base("cpu", spoiled(tmp_path, spoil))


def test_the_base_that_ships_is_fetched_again_and_never_trained_anew(tmp_path, monkeypatch):
    path = spoiled(tmp_path, lambda b: b[:-100])
    monkeypatch.setattr(base, "SHIPPED", path)
    with pytest.raises(ValueError, match="take this file again") as caught:
        base.load_base("cpu")
    assert "make_base" not in str(caught.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="take this file again"):
        base.load_base("cpu")


def test_a_base_for_another_town_or_none_at_all_is_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="make it anew with python -m"):
        base.load_base("cpu", tmp_path / "none.safetensors")
    monkeypatch.setattr(text, "VOCABULARY", [*text.VOCABULARY, "casino"])
    with pytest.raises(ValueError, match="was made for another town"):
        base.load_base("cpu")
