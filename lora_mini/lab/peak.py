"""The most bytes that tensors hold at once while something runs, by watching them come and go."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(act, *held):
    """The most bytes held at once while `act()` runs: those of `held` (modules and tensors that
    were there before), and of all tensors that come into being.

    Each piece of memory counts once, until nothing looks at it any more. What a single operation
    needs inside itself is not seen, nor what the allocator keeps in reserve.
    """
    watch = _Watch()
    for one in held:
        whole = isinstance(one, torch.nn.Module)
        for tensor in (*one.parameters(), *one.buffers()) if whole else (one,):
            watch.note(tensor)
    with watch:
        act()
    return watch.most


class _Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.now, self.most, self.alive = 0, 0, set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
        return out

    def note(self, tensor):
        memory = tensor.untyped_storage()
        if memory._cdata in self.alive:
            return
        self.alive.add(memory._cdata)
        self.now += memory.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(memory, self._free, memory._cdata, memory.nbytes())

    def _free(self, name, size):
        self.alive.discard(name)
        self.now -= size
