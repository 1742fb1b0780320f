"""What an audit says of the step, of the batch's labels, of the loss and of tied weights."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini.audit import audit, snapshot
from tests.fixtures.audits import TOKENS, Labelled, X, adam, gpt, one, said, train
from tests.fixtures.peft.tiny import Tiny, shaken

# The optimizer makes no step


def scaled(value, steps, start=2.0**16):
    """(model, optimizer, snapshot, scaler) after steps whose loss is multiplied by a value."""
    model = gpt()
    optimizer, before = adam(model), snapshot(model, TOKENS)
    scaler = torch.amp.GradScaler("cpu", init_scale=start)
    for _ in range(steps):
        optimizer.zero_grad()
        scaler.scale(-value * model(TOKENS).log_softmax(dim=-1)[..., 2].mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    return model, optimizer, before, scaler


def test_a_scaler_that_skips_every_step_is_the_cause():
    model, optimizer, before, scaler = scaled(math.inf, 20)
    one(["B has not moved", "12 of 12", "the GradScaler has skipped every step", "20 times"],
        model, optimizer, TOKENS, before=before, scaler=scaler)
    one(["B has not moved", "the optimizer has made no step", "NaN or infinite in", "GradScaler"],
        model, optimizer, TOKENS, before=before)
    optimizer.scaler = scaler  # as accelerate's optimizer has it
    one(["the GradScaler has skipped every step"], model, optimizer, TOKENS, before=before)


def test_a_scaler_that_skips_its_first_steps_is_sound():
    model, optimizer, before, scaler = scaled(100.0, 60, start=2.0**127)
    assert 1 <= scaler.get_scale() < 2.0**127
    assert said(model, optimizer, TOKENS, before=before, scaler=scaler) == []


def test_a_scaler_that_has_worn_out_in_training_is_found():
    model, optimizer, before, scaler = scaled(1.0, 60)
    scaler.update(1e-3)
    one(["finds overflow at every scale", "1e-03", "26 times from 65,536"], model, optimizer,
        TOKENS, before=before, scaler=scaler)


def test_a_scaler_that_is_switched_off_says_nothing():
    model, optimizer, before, _ = scaled(1.0, 60)
    off = torch.amp.GradScaler("cpu", enabled=False)
    assert said(model, optimizer, TOKENS, before=before, scaler=off) == []
    optimizer.scaler = "standard"  # another's attribute
    assert said(model, optimizer, TOKENS, before=before) == []
    with pytest.raises(TypeError):
        audit(model, scaler=3)


def test_a_step_that_nobody_makes_is_told_with_the_gradients_that_are_there():
    model = gpt()
    optimizer, before = adam(model), snapshot(model, TOKENS)
    model(TOKENS).square().mean().backward()
    one(["the optimizer has made no step", "infinite in 0 of 24"], model, optimizer, TOKENS,
        before=before)
    optimizer.zero_grad()
    one(["has made no step", "no gradients are there now"], model, optimizer, TOKENS, before=before)


def test_sgd_without_a_state_has_made_its_steps():
    model = gpt()
    before = snapshot(model, TOKENS)
    optimizer = torch.optim.SGD(lm.trainable_parameters(model)[0].values(), lr=0.1)
    assert said(train(model, optimizer), optimizer, TOKENS, before=before) == []


# Labels and loss

def labelled(labels):
    model = Labelled()
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    return shaken(model), {"x": X, "labels": labels}


class Reading(nn.Module):
    """Tokens in, (loss, logits) out; with a configuration that names the end."""

    def __init__(self, eos=0):
        super().__init__()
        self.config = SimpleNamespace(eos_token_id=eos)
        self.inner = gpt()

    def forward(self, input_ids, labels, attention_mask=None):
        logits = self.inner(input_ids)
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits


def test_labels_that_are_all_masked_are_found_in_a_model_that_has_moved():
    model, batch = labelled(torch.full((5,), -100))
    one(["no token counts for the loss", "all labels are -100"], model, None, batch)


@pytest.mark.parametrize("labels, lines", [
    ([1, 2, 0, -100, 2], 0), ([1, -100, -100, -100, -100], 0)])
def test_some_labels_of_single_examples_are_enough(labels, lines):
    model, batch = labelled(torch.tensor(labels))
    assert len(said(model, None, batch)) == lines


@pytest.mark.parametrize("kept, words", [(2, "2 of 24 (8%) are not -100, in 3 rows"), (3, None)])
def test_less_than_one_label_a_row_is_a_note(kept, words):
    labels = torch.full_like(TOKENS, -100)
    labels.view(-1)[:kept] = 2
    batch = {"input_ids": TOKENS, "labels": labels}
    lines = said(Reading(None), None, batch)
    assert lines == [] if words is None else len(lines) == 1 and words in lines[0], lines


def test_less_than_one_label_in_a_hundred_is_a_note():
    model = gpt()
    tokens = torch.zeros(1, 400, dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    labels[0, :3] = 1
    case = {"input_ids": tokens, "labels": labels}
    lines = said(Loose(model), None, case)
    assert len(lines) == 1 and "note: few tokens" in lines[0] and "3 of 400 (1%)" in lines[0]
    labels[0, :4] = 1
    assert said(Loose(model), None, case) == []


class Loose(nn.Module):
    """It takes what is longer than its model's context, and answers for the start."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, labels):
        return self.inner(input_ids[:, :8])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_found(value):
    model, batch = labelled(torch.arange(5) % 3)
    whole = model.forward
    model.forward = lambda *args, **named: (whole(*args, **named)[0] * 0 + value,
                                            whole(*args, **named)[1])
    one(["the loss is no number", f"({value})"], model, None, batch)


def test_factors_that_are_nan_explain_the_loss():
    model, batch = labelled(torch.arange(5) % 3)
    with torch.no_grad():
        model.block.q_proj.lora_B[0, 0] = math.nan
    one(["NaN or infinite numbers in factors"], model, None, batch)


ENDED = torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0]])  # 0 ends, and pads


@pytest.mark.parametrize("eos", [0, [9, 0]])
def test_an_end_that_is_masked_as_padding_is_found(eos):
    one(["the end of the sentence is masked away", "0 ends 2 of 2"], Reading(eos), None,
        {"input_ids": ENDED, "labels": ENDED.masked_fill(ENDED == 0, -100)})


@pytest.mark.parametrize("name, ids, labels, mask", [
    ("the end keeps its label", ENDED, [[3, 4, 5, 0], [6, 7, 0, -100]], None),
    ("one row keeps it", ENDED, [[3, 4, 5, -100], [6, 7, 0, -100]], None),
    ("rows are cut off", [[0, 4, 5, 3], [6, 0, 7, 8]], [[-100, 4, 5, 3], [-100, -100, 7, 8]], None),
    ("only padding", ENDED, [[3, 4, 5, -100], [6, 7, -100, -100]],
     [[1, 1, 1, 0], [1, 1, 0, 0]]),
    ("padding before", [[0, 0, 3, 4], [0, 5, 6, 7]], [[-100, -100, 3, 4], [-100, 5, 6, 7]],
     [[0, 0, 1, 1], [0, 1, 1, 1]])])
def test_sound_ends_are_silent(name, ids, labels, mask):
    batch = {"input_ids": torch.as_tensor(ids), "labels": torch.tensor(labels)}
    batch |= {"attention_mask": torch.tensor(mask)} if mask else {}
    assert said(Reading(), None, batch) == []


# Ties

class Tied(nn.Module):
    """Tokens in, logits out; the head has the embedding's weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.block = Tiny().block
        self.back = nn.Linear(10, 6)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.back(self.block(self.embed(tokens))))


def tied(*targets, **options):
    lm.attach(model := Tied(), list(targets), 2, 4, **options)
    return model


def test_an_adapter_beside_a_tie_is_sound():
    model = tied("q_proj", "up_proj", "back")
    optimizer, before = adam(model), snapshot(model, TOKENS)
    train(model, optimizer)
    assert said(model, optimizer, TOKENS, before=before) == []
    lm.merge(model, keep_base=False)
    assert said(model, before=before) == []


def test_copies_of_both_sides_that_stay_tied_are_sound():
    assert said(tied("q_proj", modules_to_save=["embed", "head"])) == []


def test_an_adapter_on_one_side_of_a_tie_is_found():
    one(["on one side of a tie: head", "1 of 2", "the other side is embed"], tied("q_proj", "head"))


def test_a_tie_that_was_torn_since_is_found_with_and_without_an_adapter():
    model = tied("q_proj", "up_proj")
    before = snapshot(model)
    shaken(model)
    model.head.weight = nn.Parameter(model.head.weight.detach().clone(), requires_grad=False)
    words = ["a tie is torn: embed.weight and head.weight", "1 of 1"]
    one(words, model, before=before)
    lm.merge(model, keep_base=False)
    one(words, model, before=before)
