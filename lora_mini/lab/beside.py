"""What an audit is given of a patient of the zoo: the model alone, or its file and labels, too.

The files are real ones, safetensors in a folder that is gone afterwards.
"""

import json
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from lora_mini import audit
from lora_mini.adapters.reading import CONFIG, TENSORS

MASKED = -100  # the label of what the loss doesn't count


def heard(ward, patient):
    """The Findings of an audit of a patient's model, with its optimizer and what was before.

    What lies beside the model is given by `shown`. A merged model has no adapter any more: there
    nothing from before is given, or the audit would say just that.
    """
    before = None if patient.merged else patient.before
    return audit.audit(patient.model, patient.optimizer, ward.batch, before=before)


def shown(ward, patient):
    """The Findings of an audit that is given what lies beside a patient; an empty list if nothing.

    A model that was loaded is held against its adapter's file. A merged model's file is held
    against the twin, the model with its adapter apart. What trained here is asked with the labels.
    """
    found = []
    if patient.file is not None:
        loaded = any("lora_" in name for name in patient.file)
        with tempfile.TemporaryDirectory() as folder:
            found += audit.audit(patient.model if loaded else patient.twin, batch=ward.batch,
                                 file=written(patient, Path(folder), loaded))
    if patient.counts is not None:
        tokens, mask, _ = ward.draw(random.Random(ward.seed))
        counts = patient.counts(tokens, mask).bool()
        batch = {"input_ids": tokens, "labels": tokens.masked_fill(~counts, MASKED)}
        found += audit.audit(Labelled(patient.model), patient.optimizer, batch)
    return found


def written(patient, folder, loaded):
    """The path of a patient's file, put into a folder; beside an adapter's its config, if any."""
    path = folder / (TENSORS if loaded else "model.safetensors")
    save_file({name: t.contiguous() for name, t in patient.file.items()}, path)
    if patient.config is not None:
        (folder / CONFIG).write_text(json.dumps(patient.config), "utf-8")
    return path


class Labelled(nn.Module):
    """A GPT of the town in the form of a Hugging Face model's.

    It takes input_ids and labels, both (B, T), and returns logits (B, T - 1, V) and the loss. Its
    config says which token ends a sentence.
    """

    def __init__(self, model):
        super().__init__()
        self.model, self.training = model, model.training
        self.config = SimpleNamespace(eos_token_id=model.config.end)

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def forward(self, input_ids, labels):
        logits = self.model(input_ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=MASKED)
        return {"logits": logits, "loss": loss}


def as_peft(saved):
    """Factors by the names that PEFT's files give them."""
    return {f"base_model.model.{name}.weight": tensor for name, tensor in saved.items()}


def config(rank, alpha):
    """What PEFT's adapter_config.json must say."""
    return {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}


def whole(model, dtype=None):
    """{name: tensor} of a merged model, copies; of tied weights the first, as files have it."""
    return {n: p.detach().to(dtype, copy=True) if dtype else p.detach().clone()
            for n, p in model.named_parameters()}
