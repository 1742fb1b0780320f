"""Adapters as things: named, switched, blended, mixed inside a batch, saved and loaded.

A model may hold several adapters, each under a name, one of them active; what `attach` puts on is
called "default". Files are PEFT's: safetensors and JSON, nothing is ever unpickled.
"""

from lora_mini.adapters.files import Report, fingerprint, load, save
from lora_mini.adapters.mixing import blend, extract
from lora_mini.adapters.rows import rows
from lora_mini.adapters.shelf import active, add, names, remove, switch

__all__ = ["Report", "active", "add", "blend", "extract", "fingerprint", "load", "names", "remove",
           "rows", "save", "switch"]
