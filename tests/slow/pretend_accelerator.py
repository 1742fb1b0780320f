"""A pretend accelerator: the device "pretend:0", which computes on the CPU and never mixes devices.

Where no GPU is at hand it shows what the CPU alone can't: code that forgets to move a tensor fails
here as it would on CUDA, code that wants float64 fails as on a Mac's GPU, and code that does
neither gets the CPU's numbers.
Importing this registers the device for the whole process, so tests import it in a process of
their own. It rests on a private entry point of PyTorch, seen to work in torch 2.13.
"""

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
MOVES = ("aten::copy_", "aten::_copy_from", "aten::_to_copy")  # what may see two devices
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)


class PretendTensor(torch.Tensor):
    """Says that it lives on `pretend:0`; its numbers are in `numbers`, a CPU tensor."""

    @staticmethod
    def __new__(cls, numbers):
        if numbers.dtype in (torch.float64, torch.complex128):  # as on a Mac's GPU
            raise TypeError(f"{DEVICE} has no {numbers.dtype}: move to the CPU before converting")
        made = torch.Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype, device=DEVICE)
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return compute(op, args, kwargs or {})


def compute(op, args, kwargs):
    """Run one operation on the numbers behind its arguments, after looking at their devices."""
    everything = pytree.tree_leaves((args, kwargs))
    here = [x for x in everything if isinstance(x, PretendTensor)]
    left_behind = [x for x in everything if isinstance(x, torch.Tensor)
                   and not isinstance(x, PretendTensor) and x.dim()]  # single numbers may mix
    if here and left_behind and not op.name().startswith(MOVES):
        raise RuntimeError(f"{op.name()}: expected all tensors on {DEVICE}, but one is on the CPU")
    if here and any(isinstance(x, torch.Generator) for x in everything):  # they are the CPU's
        raise RuntimeError(f"{op.name()}: expected a generator on {DEVICE}, but it is on the CPU")
    out = op(*pytree.tree_map(_to_cpu, args), **pytree.tree_map(_to_cpu, kwargs))
    name = op._schema.name  # of an operator such as <<, it is "__lshift__"
    if here and name.endswith("_") and not name.endswith("__"):  # in place: what was changed
        return args[0]
    if any(isinstance(x, torch.device) and x.type == "cpu" for x in everything):
        return out  # this was a move to the CPU
    return pytree.tree_map(lambda x: PretendTensor(x) if isinstance(x, torch.Tensor) else x, out)


def _to_cpu(x):
    if isinstance(x, PretendTensor):
        return x.numbers
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


# Tensors made straight on the device, like torch.zeros(2, device="pretend"), come by here.
_creation = torch.library.Library("_", "IMPL")
_creation.fallback(lambda op, *args, **kwargs: compute(op, args, kwargs), "PrivateUse1")


def _tensor(data, *, device=None, _made=torch.tensor, **options):
    """torch.tensor, which has no way into a device of Python's."""
    made = _made(data, **options)
    return made if device is None else made.to(device)


torch.tensor = _tensor
