"""Two processes train what one trains, with DDP and with FSDP2, and exchange what was predicted."""

import json
import os
import subprocess
import sys

import pytest
from torch.distributed.fsdp import FSDPModule

import build
from lora_mini.world import base

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="tried with Linux's gloo only"),
    pytest.mark.skipif(not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"),
                       reason="gloo can't average here, and this FSDP2 asks it to"),
]
TOLERANCE = 1e-5
ARMS, WAYS = ("full", "LoRA"), ("DDP", "FSDP2")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{(arm, way): the figures}."""
    path = tmp_path_factory.mktemp("two") / "figures.json"
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         build.ROOT / "benchmarks" / "two_processes.py", "--json", path],
        capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads(path.read_text("utf-8"))
    assert run.stdout.count("\n") == len(rows) + 1  # a head, and one rank's rows
    return {(row["arm"], row["way"]): row for row in rows}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_end_where_one_does(found, arm, way):
    assert found[arm, way]["difference"] <= TOLERANCE


@pytest.mark.parametrize("arm", ARMS)
def test_the_mean_of_means_would_be_seen(found, arm):
    assert found[arm, "DDP, mean of means"]["difference"] > 10 * TOLERANCE


@pytest.mark.parametrize("way", WAYS)
def test_the_gradients_bytes_are_four_for_each_number_that_trains(found, way):
    rank = 8
    model = base.shipped()
    layers = [m for block in model.blocks for m in block.modules() if hasattr(m, "in_features")]
    everything = sum(p.numel() for p in model.parameters())
    thin = sum(rank * (m.in_features + m.out_features) for m in layers)
    assert found["full", way]["gradients"] == 4 * everything
    assert found["LoRA", way]["gradients"] == 4 * thin
    assert 5 * thin < everything and found["LoRA", way]["by hand"] == 4 * thin


def test_under_ddp_lora_exchanges_less_than_a_fifth(found):
    assert 5 * found["LoRA", "DDP"]["gradients"] < found["full", "DDP"]["gradients"]


@pytest.mark.parametrize("arm", ARMS)
def test_fsdp2_gathers_blocks_twice_and_the_rest_once_frozen_or_not(found, arm):
    model = base.shipped()
    once = sum(p.numel() for p in model.parameters())
    blocks = sum(p.numel() for p in model.blocks.parameters())
    thin = found["LoRA", "DDP"]["by hand"] // 4 if arm == "LoRA" else 0  # all of it in blocks
    assert found[arm, "FSDP2"]["parameters"] == 4 * (once + blocks + 2 * thin)


def test_frozen_weights_stay_to_the_bit(found):
    assert all(row["frozen stayed"] for row in found.values())
