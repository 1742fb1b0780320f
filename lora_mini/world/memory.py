"""What training takes of a device's memory: told before it starts, and advice where it is too much.
"""

import contextlib
import copy

import torch

from lora_mini.ledger import ledger, step_bytes

FULL = ("out of memory", "not enough memory", "can't allocate memory")  # CUDA, Mac, Windows, Linux
ADVICE = ("Take fewer examples a step; restart the kernel, which frees what older cells hold; "
          "train LoRA instead of all; or train on the CPU: set LORA_MINI_DEVICE=cpu, start again.")


def needed(model, act):
    """(its Ledger, `ledger.step_bytes`) of a training step of `model`, on a copy on the CPU.

    act: a function of a model that makes one forward pass and returns the loss, precision included.
    """
    double = copy.deepcopy(model).cpu().train()
    return ledger(double), step_bytes(double, lambda: act(double))


def check(model, act, free=None):
    """A sentence on what training will take, before it starts; see `needed`.

    free: the bytes that the device has left beside the model's weights, which lie on it already; by
    default CUDA is asked, elsewhere nothing is known. Raises MemoryError, with advice, where the
    rest of a step needs more.
    """
    (found, most), device = needed(model, act), next(model.parameters()).device
    if free is None and device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    said = (f"{found.trainable:,} of {found.parameters:,} numbers train; weights, gradients and "
            f"AdamW's states take {found.total_bytes / 1e6:.0f} MB, a step at most "
            f"{most / 1e6:.0f} MB at once")
    if free is not None and most - found.weight_bytes > free:
        raise MemoryError(f"{said}, weights included; {device} has {free / 1e6:.0f} MB left beside "
                          f"them. {ADVICE}")
    return said


@contextlib.contextmanager
def advice(model):
    """Inside, PyTorch's error for a full memory becomes a MemoryError that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in FULL):
            raise
        found, device = ledger(model), next(model.parameters()).device
        raise MemoryError(
            f"the memory of {device} is full: weights, gradients and AdamW's states take "
            f"{found.total_bytes / 1e6:.0f} MB of it, the rest a step's activations, or other "
            f"cells. {ADVICE}") from error
