"""LoRA, small enough to read in an evening: the package behind the course's notebooks."""

from lora_mini.lora import LoRALinear
from lora_mini.model import (
    attach,
    detach,
    disabled,
    merge,
    set_strength,
    trainable_parameters,
    unmerge,
)

__all__ = ["LoRALinear", "attach", "detach", "disabled", "merge", "set_strength",
           "trainable_parameters", "unmerge"]
