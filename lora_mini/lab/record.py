"""Recorded measurements: what takes longer than a lesson, with the command that makes it again.

A record is `records/arms.json`; `python -m lora_mini.lab arms` makes it.
"""

import ast
import datetime
import hashlib
import json
from pathlib import Path

HERE = Path(__file__).parent
# what records rest on
CODE = ("lora.py", "step.py", "model.py", "targets.py", "copies.py", "variants.py", "quant.py",
        "world/*.py", "lab/trials.py", "lab/inside.py")
ALSO = {"house": ("lab/house.py", "lab/tutor.py", "lab/voice.py")}  # one record alone rests on them
PLANS = {"bits": "contrasts_11.toml", "fresh": "contrasts_13.toml",
         "fresh_words": "contrasts_13.toml",
         "bias": "contrasts_17.toml", "house": "contrasts_15.toml"}  # the others': the first


def load(name):
    """A record as a dictionary; "about" says what made it.

    Raises FileNotFoundError for a record that there isn't, ValueError for a damaged one.
    """
    path = HERE / "records" / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"there is no record {name!r}: {', '.join(names()) or 'none'} "
                                f"exist; make one with python -m lora_mini.lab {name}")
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("about"), dict):
            raise ValueError("it says nothing about what made it")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): take the file again from where you have "
                         "the course, or make it anew with python -m lora_mini.lab "
                         f"{name}") from None
    return found


def find(cells, **where):
    """The one cell of a record in which every key of `where` has that value.

    Raises LookupError, with the values that there are, if it is not just one.
    """
    found = [c for c in cells if all(c.get(key) == value for key, value in where.items())]
    if len(found) != 1:
        known = {key: sorted({str(c.get(key)) for c in cells}) for key in where}
        raise LookupError(f"{len(found)} cells have {where}; there are {known}")
    return found[0]


def names():
    """The names of the records that exist."""
    return sorted(path.stem for path in (HERE / "records").glob("*.json"))


def label(record):
    """Two lines for a recorded figure: command and machine, torch and code."""
    about = record["about"]
    return (f"recorded: {about['command']},\n" + ",\n".join(about["by"])
            + f",\ncode {about['code']}, contrasts {about['plan']}")


def code_hash(name=None):
    """A hash of the code that a record depends on, without comments and docstrings."""
    parts, patterns = [], CODE + ALSO.get(name, ())
    for path in sorted(p for pattern in patterns for p in HERE.parent.glob(pattern)):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) \
                    and isinstance(getattr(body[0], "value", None), ast.Constant):
                body[0].value.value = ""
        parts += [path.relative_to(HERE.parent).as_posix(), ast.dump(tree)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def plan_hash(name):
    """A hash of what a record was to judge, as it stood when the record was made."""
    plan = HERE.parent / "desk" / PLANS.get(name, "contrasts.toml")
    return hashlib.sha256(plan.read_bytes()).hexdigest()[:12]


def write(name, content, code, by):
    """Write a record, with what made it: the machines, the `code_hash` at its start, the hash of
    the contrasts, the date."""
    about = {"command": f"python -m lora_mini.lab {name}", "by": sorted(by), "code": code,
             "plan": plan_hash(name), "date": f"{datetime.date.today()}"}
    path = HERE / "records" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f' "{key}": {_lines(value)}' for key, value in content.items()]
    _replace(path, "{\n" + ",\n".join([f' "about": {json.dumps(about)}', *lines]) + "\n}\n")


def note(name, **more):
    """Add to what a record says of itself, such as `replayed`; the rest stays to the letter."""
    path = HERE / "records" / f"{name}.json"
    text, about = path.read_text("utf-8"), load(name)["about"]
    was, now = (f' "about": {json.dumps(each)},\n' for each in (about, about | more))
    if was not in text:
        raise ValueError(f"{path}: expected the line {was.strip()!r}, as `write` writes it")
    _replace(path, text.replace(was, now, 1))


def _replace(path, text):
    draft = path.with_suffix(".new")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def _lines(value):
    """JSON, a cell a line."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[" + ",\n  ".join(json.dumps(each) for each in value) + "]"
