"""Do two processes train what one trains? DDP and FSDP2 beside a single process, on CPUs.

    python -m torch.distributed.run --standalone --nproc-per-node 2 benchmarks/two_processes.py

(some ten seconds). The town's GPT makes five steps on 32 rows each: in one process, and in two
that take 16 rows each. With DDP each process keeps the whole model, and the gradients of what
trains are summed. With FSDP2 it keeps half of every parameter, frozen ones too: the whole of a
block is gathered on the way there and again on the way back, the rest once a step.

difference: a weight's largest from the single process's. gradients, parameters: bytes a step, of
the whole tensors that are summed or gathered; a process sends half of them, at the least, but all
of DDP's gradients. by hand: 4 for each number that trains. The last row is a mistake: is it seen?
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import lora_mini as lm
from lora_mini.world import base, text, town, train
from lora_mini.world.styles import register

# SGD, since AdamW hides some errors and makes up others. Gradients twice as large hardly change its
# steps. And a key's bias has a gradient of zero but for rounding, as softmax doesn't see it: there
# AdamW steps by chance, and at a rate of 1e-3 ended 9e-4 apart, where all else was 6e-6 apart.
STEPS, ROWS, RATE = 5, 32, 0.1
TOLERANCE = 1e-5  # rounding came to 3e-7, the mistake to 8e-4 and more
ONE, MISTAKE = "one process", "DDP, mean of means"


class Collectives(TorchDispatchMode):
    """Adds up what FSDP2 gathers and scatters, where PyTorch hands it to the process group."""

    def __init__(self, counted):
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.c10d._allgather_base_.default:
            self.counted["parameters"] += args[0].nbytes  # (output, input): the whole comes out
        elif func is torch.ops.c10d._reduce_scatter_base_.default:
            self.counted["gradients"] += args[1].nbytes  # (output, input): the whole goes in
        return func(*args, **(kwargs or {}))


def hook(counted, bucket):
    """Add up what DDP sums, then sum it over all processes."""
    counted["gradients"] += bucket.buffer().nbytes
    return allreduce_hook(None, bucket)


def batches():
    """STEPS pairs of tokens and mask, short rows first, so that the ranks' token counts differ."""
    for seed in range(STEPS):
        data = text.batch(town.sample_frames(ROWS, seed), register("legal"), seed)
        order = data.mask.sum(dim=1).argsort(stable=True)
        yield data.tokens[order], data.mask[order]


def ready(arm):
    """The base, with what the arm trains trainable."""
    model = base.load_base("cpu", base.SHIPPED).train()
    if arm == "LoRA":
        torch.manual_seed(0)  # FSDP2 would join halves of different A without a word
        lm.attach(model, "all-linear", rank=8, alpha=16)
    return model


def loss(net, way, tokens, mask):
    """The mean over the batch's tokens in one process; in several, this rank's share of it.

    DDP and FSDP2 average the ranks' gradients. The average of means would weigh a token more where
    there are fewer. So divide by all ranks' tokens, and undo the average's division by the ranks.
    """
    ranks, rank = dist.get_world_size(), dist.get_rank()
    if way != ONE:
        tokens, mask = tokens.chunk(ranks)[rank], mask.chunk(ranks)[rank]
    if way in (ONE, MISTAKE):
        return train.loss(net, tokens, mask)
    count = mask[:, 1:].sum()
    dist.all_reduce(count)
    return ranks * (train.token_losses(net, tokens) * mask[:, 1:]).sum() / count


def trained(arm, way):
    """The weights by name, whole, after STEPS steps, and the bytes of a step."""
    net = model = ready(arm)
    counted = {"gradients": 0, "parameters": 0}
    if way == "FSDP2":
        for part in (*model.blocks, model):
            fully_shard(part, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
            part.set_force_sum_reduction_for_comms(True)  # not every release's gloo can average
    elif way != ONE:
        net = DistributedDataParallel(model)
        net.register_comm_hook(counted, hook)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    for tokens, mask in batches():
        optimizer.zero_grad()
        with Collectives(counted):
            loss(net, way, tokens, mask).backward()
        optimizer.step()
    whole = {n: getattr(p, "full_tensor", p.detach)() for n, p in model.named_parameters()}
    return whole, {kind: total // STEPS for kind, total in counted.items()}


def rows(arm):
    """The figures of each way, the single process first."""
    start, single = dict(ready(arm).named_parameters()), None
    trains, trainable = lm.trainable_parameters(ready(arm))
    for way in (ONE, "DDP", "FSDP2", MISTAKE):
        found, counted = trained(arm, way)
        single = single or found
        apart = max((found[name] - single[name]).abs().max().item() for name in start)
        still = all(torch.equal(found[name], start[name]) for name in start.keys() - trains)
        yield {"arm": arm, "way": way, "difference": apart, **counted, "by hand": 4 * trainable,
               "frozen stayed": still}


def main():
    parser = argparse.ArgumentParser(description="One process, DDP and FSDP2")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # a block's keys and values are views
    dist.init_process_group("gloo")
    found = [row for arm in ("full", "LoRA") for row in rows(arm)]
    if dist.get_rank() == 0:
        print("arm  way                difference  gradients  parameters  by hand")
        for row in found:
            print("{arm:4} {way:18} {difference:10.1e} {gradients:10,} {parameters:11,} "
                  "{by hand:8,}".format(**row))
        if options.json:
            options.json.write_text(json.dumps(found), "utf-8")
    dist.destroy_process_group()
    time.sleep(1)  # a thread of gloo's that lets go of a Python object in Python's own exit aborts
    for row in found:
        if row["way"] in ("DDP", "FSDP2") and not row["difference"] <= TOLERANCE:
            raise SystemExit("{arm}, {way}: a weight is {difference:.1e} off".format(**row))


if __name__ == "__main__":
    main()
