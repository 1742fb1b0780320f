"""The ledger of claims: what was found about each, out of records and executed notebooks.

Nothing in it is typed: verdicts over bases come from the records, facts of logic and the places of
all verdicts from `spoken.json`, which `read` takes out of the notebooks. `desk/page.py` shows it.
"""

import json
import math
import re
import tomllib
from pathlib import Path

from lora_mini.desk import verdicts
from lora_mini.lab import contrasts, replay

CLAIMS = tuple(f"C{number}" for number in range(1, 22))
SPOKEN = Path(__file__).parent / "spoken.json"
DISPUTES = Path(verdicts.__file__).parent / "disputes.toml"
KEYS = ("says", "statistic", "source", "source_value", "changes")
SECTION = re.compile("# ##+ (?!Exercise|Bet)")
TRUE = {word: fact for fact, word in verdicts.SEEN.items()}


def ledger():
    """All that the ledger holds, ready for JSON: claims, predictions, disputes."""
    told = json.loads(SPOKEN.read_text("utf-8"))
    rows = [row(claim, told.get(claim, {})) for claim in CLAIMS]
    dates = sorted({made["date"] for each in rows for made in each["records"]})
    when = f"{dates[0]} to {dates[-1]}"
    return {
        "about": {
            "what": "What people say about LoRA, measured again in the notebook course lora_mini",
            "cite": f"lora_mini, the ledger of claims (docs/claims.json), found {when}",
            "made_by": "python build.py claims", "licence": "MIT",
            "effects": "A factor is what the rival pays over what the subject pays, a share the "
                       "subject's minus the rival's. The intervals of one claim hold together with "
                       "95 percent; the bases are the unit.",
            "reach": "One small transformer in a made-up language: where a claim can fail, not how "
                     "your model will do."},
        "claims": rows,
        "predictions": [prediction(name) for name in verdicts.planned() if name.startswith("P")],
        "disputes": disputes(),
    }


def row(claim, told):
    """One claim as a dictionary; its "word" is "missing" if nothing is recorded for it.

    told: what the notebooks say of it, an entry of `read`.
    """
    table = verdicts.claims()[claim]
    found = {"claim": claim} | {key: table[key] for key in KEYS} | {
        "note": table.get("note", ""), "word": "missing",
        "notebook": told.get("notebook"), "heading": told.get("heading"),
        "verdict": "Nothing is recorded for this claim yet.", "how": "missing", "old": False,
        "conditions": [], "facts": [], "records": []}
    try:
        return found | {"logic": _logic, "measured": _measured}[table["kind"]](claim, told)
    except (FileNotFoundError, KeyError):  # no record; nothing told; the kind "missing"
        return found


def _logic(claim, told):
    table, facts = verdicts.claims()[claim], told["facts"]
    judged = verdicts.judge(claim, **facts)
    made = {"record": f"notebook {told['notebook'][:2]}", "command": "python build.py",
            "by": [told["by"]], "date": told["date"]}
    return {"word": judged.word, "verdict": str(judged), "how": table["how"], "records": [made],
            "facts": [{"fact": name, "role": table["facts"][name]["role"], "seen": seen}
                      for name, seen in facts.items()]}


def _measured(claim, told):
    rules, live = verdicts.contrasts(claim), told.get("live", {})
    found = contrasts.effects(claim) | {name: [math.log(f)] * 2 for name, f in live.items()}
    found = {name: found[name] for name in rules}
    judged = verdicts.weigh(claim, found)
    names = dict.fromkeys(each["record"] for each in rules.values() if each["record"] != "live")
    made = [{"record": name} | contrasts.load(name)["about"] for name in names]
    return {"word": judged.word, "verdict": str(judged), "records": made,
            "how": "recorded" + "; one contrast measured when the notebook was built" * bool(live),
            "old": any(old(each) for each in made),
            "conditions": [condition(name, rules[name], found[name], len(rules))
                           for name in rules]}


def condition(name, rules, values, many):
    """A contrast in numbers: a factor or a difference of shares, its interval, what it came to."""
    came, near = verdicts.outcome(values, verdicts.reach(rules), many)
    ratio = rules["kind"] == "ratio"
    numbers = [math.exp(x) if ratio else x for x in (near.mean, near.low, near.high)]
    return dict(zip(("effect", "low", "high"), (float(f"{x:.4g}") for x in numbers), strict=True),
                condition=name, kind="factor" if ratio else "share", margin=rules["margin"],
                outcome=came, holds=None if came == "open" else came in rules["holds"],
                bases=None if rules["record"] == "live" else len(values), record=rules["record"],
                words=verdicts.seen(values, rules, many, name).removeprefix(f"{name}: "))


def old(about):
    """Whether a record no longer comes out: too many of its points, done again, lie outside their
    prediction intervals. (Changed code makes no record old: it asks for a `replay`.)"""
    again = about.get("replayed")
    return bool(again) and again["outside"] > replay.ALLOWED * again["of"]


def prediction(name):
    """One of our own bets, made before its record: its contrasts, and which came true."""
    rules, says = verdicts.contrasts(name), verdicts.planned()[name]["says"]
    try:
        found = contrasts.effects(name)
    except FileNotFoundError:
        return {"prediction": name, "says": says, "contrasts": []}
    return {"prediction": name, "says": says, "contrasts": [
        condition(each, rules[each], found[each], len(rules)) | {"said": rules[each]["holds"]}
        for each in rules]}


def disputes():
    """What `disputes.toml` says, each with what the town has measured beside it."""
    found = tomllib.loads(DISPUTES.read_text("utf-8"))["dispute"]
    return [{key: each[key] for key in ("asks", "sides", "cannot")} | {"town": _town(each)}
            for each in found]


def _town(dispute):
    lines = []
    for claim, name in dispute.get("contrasts", ()):
        rules = verdicts.contrasts(claim)
        values = contrasts.effect(**rules[name])
        lines.append(f"{claim}, {verdicts.seen(values, rules[name], len(rules), name)}")
    for new in (0, 12, 24) if "rates" in dispute else ():
        best = {arm: contrasts.cell("arms", arm=arm, new=new, examples=256)["best"]
                for arm in dispute["rates"]}
        lines.append(f"{new} new words, best rates: " + ", ".join(
            f"{arm} {rate:g}" for arm, rate in best.items()))
    return lines


def read(root):
    """What lessons and executed notebooks under `root` say of each claim; for `spoken.json`.

    Where the verdict stands, by the last section above it; the facts of logic as its cell printed
    them (pytest --nbval compares that to the letter); a contrast that the lesson counts live.
    """
    found = {}
    for lesson in sorted((root / "lessons").glob("[0-9][0-9]_*.py")):
        path, heading = root / "notebooks" / f"{lesson.stem}.ipynb", ""
        unbuilt = '{"cells": [], "metadata": {}}'
        built = json.loads(path.read_text("utf-8") if path.exists() else unbuilt)
        said = _printed(built)
        made = built["metadata"].get("lora_mini", {})
        for line in lesson.read_text("utf-8").splitlines():
            heading = line.lstrip("# ") if SECTION.match(line) else heading
            if spoke := re.match(r'verdict\("(C\d+)"', line):
                claim = spoke[1]
                found[claim] = {"notebook": lesson.stem, "heading": heading,
                                "date": made.get("date"), "by": made.get("by")}
                found[claim] |= _told(claim, said)
    return found


def _printed(notebook):
    """All that the code cells printed, in one line."""
    texts = ["".join(out.get("text", ())) for cell in notebook["cells"]
             for out in cell.get("outputs", ())]
    return " ".join(" ".join(texts).split())


def _told(claim, said):
    """The facts, or the factor of a live contrast, that a verdict has printed: {} if it hasn't."""
    table = verdicts.claims()[claim]
    part = said.partition(f'{claim}: "{table["says"]}"')[2].partition("Verdict:")[0]
    if table["kind"] == "measured":
        live = {name: re.search(re.escape(name) + r": \w+, factor ([\d.]+)", part)
                for name, rules in verdicts.contrasts(claim).items() if rules["record"] == "live"}
        return {"live": {name: float(hit[1]) for name, hit in live.items() if hit}} if live else {}
    words = "|".join(TRUE)
    facts = {name: re.search(rf"{name.replace('_', ' ')}: ({words})(?!\w)", part)
             for name in table["facts"]}
    return {"facts": {name: TRUE[hit[1]] for name, hit in facts.items()}} if all(
        facts.values()) else {}
