"""What people do with trained adapters: infer, mix in one batch, switch, save, load, cut out."""

import tempfile
from pathlib import Path

import torch
from arms import ALPHA, LORA, RANK, adapted, dense, fill, inner, peft_config, with_peft
from safetensors.torch import load_file, save_file
from turns import counts, in_turns, operators

import lora_mini as lm
from lora_mini import adapters
from lora_mini.model import wrappers

PASSES = 8
DIFFER = 2e-3  # of the largest logit: outputs of arms that compute the same, in float32


def logits(model, ids, **options):
    with torch.inference_mode():
        out = model(ids, **options)
        return out if isinstance(out, torch.Tensor) else out.logits


def check_outputs(found, names):
    """The largest distance of these outputs from the first, of its largest entry."""
    first, *others = (found[name] for name in names if name in found)
    far = max(((y - first).abs().max() / first.abs().max()).item() for y in others)
    if not far <= DIFFER:
        raise ValueError(f"outputs that should be the same differ by {far:.1e}: {names}")
    return float(f"{far:.1g}")


def results(about, acts, turns, profile=False, alike=None, least=0.005):
    """Rows of results of {arm: function}."""
    times = in_turns(acts, turns, least)
    for name, act in acts.items():
        passes = getattr(act, "passes", 1)
        yield {**about, "arm": name, "ms": times[name], "alike": alike,
               **{what: number // passes for what, number in counts(act).items()},
               **({"operators": operators(act)} if profile else {})}


# Inference


def inference(subject, shapes, turns, profile=False):
    """One pass forward: the base alone, adapters beside it, and merged."""
    models = {"base": dense(subject.make()), "base, again": dense(subject.make())}
    models |= adapted(subject.make, RANK, [*LORA, "ours, four bits", "ours, DoRA", "PEFT, DoRA"])
    for name, model in models.items():
        if not name.startswith("base"):
            fill([p for p in model.parameters() if p.requires_grad])
    models |= {f"{n}, merged": m for n, m in adapted(subject.make, RANK, ("ours", "PEFT",
                                                                         "loralib")).items()}
    models["ours, merged for good"] = adapted(subject.make, RANK, ["ours"])["ours"]
    for name, model in models.items():
        if "merged" not in name:
            model.train("loralib" in name)  # loralib merges in eval(); its train() leaves it apart
            continue
        fill([p for p in model.parameters() if p.requires_grad])
        model.eval()
        if "ours" in name:
            lm.merge(model, keep_base="good" not in name)
        elif "PEFT" in name:
            model.merge_adapter()
    for rows, tokens in shapes:
        ids = subject.ids(rows, tokens)
        acts = {name: lambda m=model, x=ids: logits(m, x) for name, model in models.items()}
        seen = {name: act() for name, act in acts.items()}
        alike = check_outputs(seen, [n for n in seen if "base" not in n and "DoRA" not in n])
        check_outputs(seen, ["ours, DoRA", "PEFT, DoRA"])
        check_outputs(seen, ["base", "base, again"])
        about = {"part": "inference", "model": subject.name, "rows": rows, "tokens": tokens,
                 "rank": RANK}
        yield from results(about, acts, turns, profile, alike)


# Several adapters


def shelf_of(subject, count):
    """A model of ours with `count` adapters "0", "1", ..., the last of them active."""
    model = dense(subject.make())
    names = list(inner(model))
    for number in range(count):
        adapters.add(model, str(number), names, RANK, ALPHA)
        fill(_factors(wrappers(model).values()), number)
    return model.eval()


def shelf_of_peft(subject, count):
    """The same in PEFT, with the same factors; None where it is not installed."""
    model = dense(subject.make())
    try:
        config = peft_config(model, RANK)
        made = with_peft()(model, RANK)
    except ImportError:
        return None
    made.delete_adapter("default")
    for number in range(count):
        made.add_adapter(str(number), config)
        made.set_adapter(str(number))
        fill([p for p in made.parameters() if p.requires_grad], number)
    return made.eval()


def _factors(layers):
    return [p for layer in layers for p in (layer.lora_A, layer.lora_B)]


def mixed(subject, shapes, numbers, turns, profile=False):
    """A batch whose rows have 1, 2, ... different adapters, in one pass; a pass for each beside.

    "mixed" enters `adapters.rows` for every pass. With one token a row, as when text is written,
    eight passes inside one `with` are timed, too: time and counts are those of one of them; and
    entering and leaving with no pass at all.
    """
    most = max(numbers)
    ours, theirs = shelf_of(subject, most), shelf_of_peft(subject, most)
    for rows, tokens in shapes:
        ids = subject.ids(rows, tokens)
        acts, seen = {}, {}
        for number in numbers:
            names = [str(row % number) for row in range(rows)]

            def at_once(names=names, ids=ids):
                with adapters.rows(ours, names):
                    return logits(ours, ids)

            def pefts(names=names, ids=ids):
                return logits(theirs, ids, adapter_names=names)

            def loop(number=number, ids=ids):
                parts = [_switched(ours, str(n), ids[n::number]) for n in range(number)]
                y = torch.empty(len(ids), *parts[0].shape[1:])
                for n, part in enumerate(parts):
                    y[n::number] = part
                return y

            def many(names=names, ids=ids):
                with adapters.rows(ours, names):
                    for _ in range(PASSES):
                        y = logits(ours, ids)
                return y
            many.passes = PASSES

            def enters(names=names):
                with adapters.rows(ours, names):
                    pass
            made = {"mixed": at_once, "loop": loop} | ({"PEFT": pefts} if theirs else {})
            if tokens == 1:
                made["mixed, eight passes"] = many
            outputs = {name: act() for name, act in made.items()}
            seen[number] = check_outputs(outputs, list(outputs))
            if tokens == 1:
                made["entering alone"] = enters
            acts |= {f"{name}, {number}": act for name, act in made.items()}
        adapters.switch(ours, "0")
        acts["one"] = acts["one, again, 1"] = lambda x=ids: logits(ours, x)
        if theirs:
            theirs.set_adapter("0")
            acts["PEFT, one, 1"] = lambda x=ids: logits(theirs, x)
        about = {"part": "mixed", "model": subject.name, "rows": rows, "tokens": tokens,
                 "rank": RANK}
        yield from _in_place(results(about, acts, turns, profile, max(seen.values())))


def _in_place(rows):
    """"mixed, 16" as an arm and a number of adapters."""
    for row in rows:
        arm, _, number = row["arm"].rpartition(", ")
        yield {**row, "arm": arm or number, "adapters": int(number) if arm else 1}


def _switched(model, name, ids):
    adapters.switch(model, name)
    return logits(model, ids)


def switching(subject, count, turns, profile=False):
    """Another of `count` adapters becomes the active one; the next pass is not part of it."""
    ours, theirs = shelf_of(subject, count), shelf_of_peft(subject, count)
    copies = adapted(subject.make, RANK, ["loralib"]).get("loralib")
    acts = {"ours": _cycle(count, lambda name: adapters.switch(ours, name))}
    if theirs:
        acts["PEFT"] = _cycle(count, theirs.set_adapter)
    if copies:  # it knows one adapter: the factors of the next are copied over it
        state = {n: p.detach().clone() for n, p in copies.named_parameters() if p.requires_grad}
        acts["loralib"] = lambda: copies.load_state_dict(state, strict=False)
    base = adapted(subject.make, RANK, ["ours"])["ours"]

    def merges():
        lm.unmerge(base)
        lm.merge(base)
    acts["ours, merging anew"] = merges
    yield from results({"part": "switch", "model": subject.name, "rank": RANK, "adapters": count},
                       acts, turns, profile)


def _cycle(count, act):
    state = {"at": 0}

    def go():
        state["at"] = (state["at"] + 1) % count
        act(str(state["at"]))
    return go


# Files


def files(subject, turns, profile=False):
    """An adapter is saved, and loaded beside the one that is there; with its size in bytes."""
    ours, theirs = shelf_of(subject, 1), shelf_of_peft(subject, 1)
    plain = {f"{n}.{k}": t for n, w in wrappers(ours).items()
             for k, t in (("A", w.lora_A), ("B", w.lora_B))}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def load_ours():
            adapters.load(ours, place / "ours", "again")
            adapters.remove(ours, "again")
            adapters.switch(ours, "0")

        def load_naive():
            found = load_file(place / "naive.safetensors")
            with torch.no_grad():
                for name, tensor in found.items():
                    plain[name].copy_(tensor)

        def load_theirs():
            theirs.load_adapter(place / "peft" / "0", "again")
            theirs.delete_adapter("again")
        saves = {"ours": lambda: adapters.save(ours, place / "ours"),
                 "naive": lambda: save_file({n: t.detach() for n, t in plain.items()},
                                            place / "naive.safetensors")}
        loads = {"ours": load_ours, "naive": load_naive}
        if theirs:
            saves["PEFT"] = lambda: theirs.save_pretrained(place / "peft")
            loads["PEFT"] = load_theirs
        about = {"part": "files", "model": subject.name, "rank": RANK}
        for what, acts in (("save", saves), ("load", loads)):
            for row in results(about | {"what": what}, acts, turns, profile):
                where = {"naive": "naive.safetensors", "PEFT": "peft"}.get(row["arm"], "ours")
                found = [place / where] if "." in where else sorted((place / where).rglob("*.*"))
                yield {**row, "bytes": sum(p.stat().st_size for p in found if p.is_file())}
