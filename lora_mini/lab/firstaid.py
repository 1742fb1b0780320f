"""The page of first aid, docs/my-adapter-does-not-learn.md, out of the zoo's specimens.

What the audit says there is asked live, so that page, notebook and audit agree.
"""

import re

from lora_mini.lab.ward import Ward
from lora_mini.lab.zoo import GROUPS, SPECIMENS, heard, shown

NOTEBOOK = "../notebooks/14_bug_zoo.ipynb"
TOP = """# My adapter does not learn

First aid by symptom, for LoRA adapters made with `lora_mini` or with PEFT. Each cause below was
made on purpose, found, and mended in [notebook 14]({notebook}). Each comes from a bug report.

The lines of code are first probes, in plain PyTorch but one; they change nothing. In them `model`
is yours, with its adapter on, and `optimizer` is the one that trains it. `batch` is what the model
takes.

## Before all else

1. **Before training**: read the list of adapted layers. Count what trains. Is each layer's scale
   what you meant it to be? Print one row of labels: does the end count?
2. **After three steps**: has every B left zero? Is the base the same?
3. **After training**: ask the same question twice. See where the answer stops.
4. **After saving, loading, merging**: compare the logits of one batch with those from before it.
5. **If all that is sound**: sweep the learning rate.

Step 2, and whether the base trains, for layers of `lora_mini`:
`audit.smoke_test(make_model, step)`. Step 1 stays with you: it doesn't know which layers you meant.
Most of the rest, for those and for PEFT's:

```python
from lora_mini.audit import audit, snapshot

before = snapshot(model, batch)             # before training
...                                         # train
print(audit(model, optimizer, batch, before=before, file=folder))
```

`file`: where the adapter was saved, or the merged model; a merged file is held against the model
with its adapter apart. `batch`: with its labels, if the model takes them.

## The symptoms

{contents}
"""


def page(ward=None, broken=None):
    """The whole page, as a text.

    Thirty steps are enough for what an audit says of these, as it says no number here. broken:
    {name: Patient} if they are made already.
    """
    ward = Ward(steps=30) if ward is None else ward
    broken = {s.name: s.broken(ward) for s in SPECIMENS} if broken is None else broken
    said = {name: [_whats(hear(ward, patient)) for hear in (heard, shown)]
            for name, patient in broken.items()}
    groups = {group: [s for s in SPECIMENS if s.group == group] for group in GROUPS}
    parts = [TOP.format(notebook=NOTEBOOK, contents="\n".join(
        f"- **{group}**: " + ", ".join(f"[{s.name}](#{anchor(s.name)})" for s in found)
        for group, found in groups.items()))]
    for group, found in groups.items():
        parts.append(f"## {group}\n")
        parts += [entry(s, *said[s.name]) for s in found]
    return "\n".join(parts)


def entry(specimen, alone, beside):
    """One cause: symptom, cause, probe, remedy, what the audit says, reports.

    alone, beside: what it says of the model alone, and with what lies beside that.
    """
    says = f"`audit` says: {alone}." if alone else "`audit` finds nothing in the model alone."
    if specimen.given:
        says += f" Given {specimen.given}, it " + (
            f"says: {beside}." if beside else f"finds nothing: {specimen.unseen}.")
    reports = ", ".join(f"[{r}](https://github.com/{r.replace('#', '/issues/')})"
                        for r in specimen.reports)
    peft = f"With PEFT:\n\n```python\n{specimen.peft}\n```\n\n" if specimen.peft else ""
    return (f"### {specimen.name.capitalize()}\n\n*{specimen.symptom}*\n\n{specimen.cause}\n\n"
            f"First probe: {specimen.alarm}\n\n```python\n{specimen.line}\n```\n\n"
            f"{peft}Remedy: {specimen.remedy}.\n\n{says}\n\nMore: [notebook 14]({NOTEBOOK}), "
            f"section *{specimen.section}*. Reported: {reports}.\n")


def _whats(findings):
    return "; ".join(f'"{what}"' for what in dict.fromkeys(f.what for f in findings))


def anchor(heading):
    """The heading's anchor on GitHub."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
