"""Full trained copies of whole modules, for `modules_to_save`."""

import copy

from torch import nn


class TrainedCopy(nn.Module):
    """Its copy trains, the original stays frozen beside it; `enabled` says which of them acts."""

    def __init__(self, original, trained):
        super().__init__()
        self.original, self.copy = original, trained
        self.enabled, self.training = True, original.training

    def forward(self, *args, **kwargs):
        return self._active(*args, **kwargs)

    def __iter__(self):  # an nn.Sequential may be iterated, indexed and measured
        return iter(self._active)

    def __getitem__(self, index):
        return self._active[index]

    def __len__(self):
        return len(self._active)

    def __bool__(self):
        return True

    @property
    def _active(self):
        return self.copy if self.enabled else self.original

    def __getattr__(self, name):  # .weight and the like: those of the module that acts
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("original", "copy") or name.startswith("__"):  # half-made, while copying
                raise
            return getattr(self._active, name)


def check_copies(model, originals, targets):
    """Raise ValueError if a full copy overlaps an adapted layer or another copy, or tears a tie."""
    for name in originals:
        for other in [*targets, *originals]:
            if other == name and name in targets or other.startswith(f"{name}.") \
                    or name.startswith(f"{other}."):
                raise ValueError(f"modules_to_save: {name!r} overlaps {other!r}; a module is "
                                 "either adapted or copied, once")
    for name, module in originals.items():
        if type(module).forward is nn.Module.forward:  # a list, a dictionary: called by its parts
            raise ValueError(f"modules_to_save: {name!r} is a {type(module).__name__}, which has "
                             "no forward of its own: name the modules inside it")
    copied = {id(p) for m in originals.values() for p in m.parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside = any(name.startswith(f"{n}.") for n in originals)
        if id(parameter) in copied and not inside:
            raise ValueError(f"modules_to_save: {name!r} is tied to a weight that would be copied, "
                             "and the copy would tear them apart: name both modules, or neither")


def copied(name, module, memory):
    """A deep copy of the module; `memory` is deepcopy's, so that tied weights stay tied."""
    try:
        return copy.deepcopy(module, memory)
    except Exception as error:
        raise ValueError(f"modules_to_save: {name!r} can't be copied: {error}") from error
