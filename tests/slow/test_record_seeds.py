"""A base that no record has used lands where the records predict; a step's two peaks of memory."""

import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from lora_mini.desk.intervals import prediction
from lora_mini.lab import contrasts, trials
from lora_mini.ledger import ledger
from lora_mini.world import base, text, town, train
from lora_mini.world.styles import register

SEED = 30


@pytest.mark.parametrize("arm", ["scratch", "full", "LoRA r=8"])
def test_the_base_that_ships_lands_where_sixteen_others_predict(arm):
    recorded = contrasts.cell("arms", arm=arm, new=0, examples=256)
    _, redone = trials.tune(base.load_base("cpu", base.SHIPPED), arm, register("legal"),
                            recorded["best"], SEED)
    near = prediction(map(math.log, recorded["total"]), floor=math.log(1.1))
    assert near.holds(math.log(redone.test.total)), (redone.test, near)
    for part, share, floor in (("valid", redone.test.valid, 0.03),
                               ("old_valid", redone.old.valid, 0.05)):
        near = prediction(recorded[part], floor=floor)
        assert near.holds(share), (part, share, near)


@pytest.mark.parametrize("arm", ["full", "LoRA r=8"])
def test_a_step_peaks_twice_as_the_profiler_sees_it(arm):
    """Held over weights and AdamW's memory: what is kept, then the gradients, never both."""
    model = trials.prepare(base.load_base("cpu", base.SHIPPED), arm).train()
    data = text.batch(town.sample_frames(32, 0), register("legal"), 0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step():
        optimizer.zero_grad()
        with record_function("FORWARD"):
            loss = train.loss(model, data.tokens, data.mask)
        with record_function("BACKWARD"):
            loss.backward()
        with record_function("STEP"):
            optimizer.step()

    with train.threads(1):
        step()  # AdamW makes its memory at its first step
        optimizer.zero_grad()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            step()
    events = seen.profiler.kineto_results.events()
    ends = {e.name(): e.start_ns() + e.duration_ns() for e in events
            if e.name() in ("FORWARD", "BACKWARD", "STEP")}
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")

    def held(until):
        return sum(nbytes for when, nbytes in changes if when <= until)

    kept, gradients = trials.saved_for_backward(model, data), ledger(model).gradient_bytes
    assert held(ends["FORWARD"]) == pytest.approx(kept, rel=0.02)
    assert held(ends["BACKWARD"]) == pytest.approx(gradients, rel=0.05)
    top = max(held(when) for when, _ in changes)
    assert kept < top < kept + 1.5e6 < 2 * kept  # the loss's own scratch, for a moment
