"""The ledger of claims put before the reader: a forest plot, a table that unfolds, a page.

All of it takes what `lab/claims.py` has gathered, as dictionaries: see `ledger` there.
"""

import math
import re
from html import escape
from urllib.parse import quote

from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes

MARKS = {"better": (">", ACCENT), "equal": ("s", THIRD), "worse": ("<", SECOND),
         "open": ("o", GREY)}
EDGE = {"factor": 8.0, "share": 1.0}  # what lies further out is drawn at the edge
BLOCK = re.compile(r"(<!-- claims -->\n).*?(<!-- end of claims -->)", re.S)
READ = """\
A verdict is one of four: **holds**, **holds when** (in some of the conditions), **misleading**,
**not decided**. A *factor* is what the rival pays over what the claim's subject pays, so above 1
the subject is nearer to the floor; a *share* is the subject's minus the rival's. In brackets stands
the interval; the intervals of one claim hold together with 95 percent. *Better* and *worse*: the
whole interval lies beyond the margin (a factor of 1.5, a share of 0.2; for C9's memory a factor of
1.1). *Equal*: all of it lies within. Else *open*. What counts was fixed before anything was
recorded.

All of it is about one small transformer in a made-up language, on bases that were trained anew. It
says where a claim *can* fail, and in which direction; for your model and your data, measure."""


def brief(row):
    """A verdict in a line: in how many of its conditions the claim holds, fails, is open."""
    holds = [each["holds"] for each in row["conditions"]]
    if row["facts"]:
        return row["verdict"].removeprefix(f"{row['claim']} ").rstrip(".")
    if not holds or row["word"] == "not decided":
        return row["word"]
    begin = {"holds": "holds in all", "misleading": "misleading: holds in none of"}.get(
        row["word"], f"holds in {holds.count(True)} of")
    parts = [f"{name} in {holds.count(value)}" for name, value in (
        ("fails", False), ("open", None)) if value in holds]
    return ", ".join([f"{begin} {len(holds)} conditions", *parts])


def forest(rows, kind):
    """(figure, alt): every contrast of one kind, "factor" or "share", as a mark and its interval.

    Colour and shape tell what it came to; words at the right, whether the claim holds there.
    """
    lines = []  # from the top: a claim's name, then its conditions
    for row in rows:
        found = [each for each in row["conditions"] if each["kind"] == kind]
        lines += [row["claim"], *found] if found else []
    fig, ax = axes(7.4, 0.4 + 0.165 * len(lines))
    edge, ratio = EDGE[kind], kind == "factor"
    low, zero = (1 / edge, 1.0) if ratio else (-edge, 0.0)
    margin = 1.5 if ratio else 0.2
    ax.axvspan(1 / margin if ratio else -margin, margin, color=GREY, alpha=0.15, lw=0)
    ax.axvline(zero, color=GREY, lw=0.8)
    style = {"transform": ax.get_yaxis_transform(), "fontsize": 7, "va": "center"}
    for y, line in enumerate(lines):
        if isinstance(line, str):
            ax.text(-0.02, y, line, weight="bold", ha="right", **style)
            continue
        mark, colour = MARKS[line["outcome"]]
        at, *ends = (min(max(line[key], low), edge) for key in ("effect", "low", "high"))
        ax.plot(ends, [y, y], color=colour, lw=1.4, solid_capstyle="butt")
        ax.plot(at, y, mark, color=colour, ms=5, mfc="white" if mark == "o" else colour)
        ax.text(-0.02, y, line["condition"], ha="right", **style)
        came = dict.fromkeys((line["outcome"], _holds(line)))  # "open" but once
        ax.text(1.02, y, ": ".join(came), **style)
    ax.set(ylim=(len(lines) - 0.3, -0.7), yticks=[], xlabel={
        "factor": "what the rival pays over what the subject pays",
        "share": "the subject's share minus the rival's"}[kind])
    if ratio:
        ticks = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
        ax.set(xscale="log", xlim=(low / 1.1, edge * 1.1))
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    else:
        ax.set(xlim=(-edge * 1.04, edge * 1.04))
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    return fig, "; ".join(f"{row['claim']} {counted(row, kind)}" for row in rows
                          if counted(row, kind)) + "."


def counted(row, kind):
    """"4 equal, 2 open": what the contrasts of one kind came to."""
    came = [each["outcome"] for each in row["conditions"] if each["kind"] == kind]
    return ", ".join(f"{came.count(word)} {word}" for word in MARKS if word in came)


def table(rows, own=(), bets=()):
    """The ledger as a list that unfolds, claim by claim: a bundle for `display`.

    own, bets: what the reader's notebooks have left, by claim (`verdicts.spoken`, `bets.noted`).
    They stand in the HTML only: the plain text, which the tests compare, is every reader's.
    """
    own, bets = dict(own), dict(bets)
    parts = []
    for row in rows:
        mine = []
        if left := own.get(row["claim"]):
            same = "the same" if left["word"] == row["word"] else "another verdict"
            mine.append(f"Yours, {same}: {left['sentence']} ({left['date']}, {left['by']})")
        if placed := bets.get(row["claim"]):
            mine.append(f"Your bet: {placed['guess']}; it came to: "
                        f"{placed.get('outcome', 'not settled yet')}.")
        lines = [escape(line) for line in [*mine, *_plain(row)]] + _link(row)
        body = "".join(f"<li>{line}</li>" for line in lines)
        parts.append(f"<details><summary><b>{row['claim']}</b> {escape(row['says'])}<br>"
                     f"<b>{escape(_upper(brief(row)))}.</b>{' (yours inside)' if mine else ''}"
                     f"</summary><ul>{body}</ul></details>")
    plain = "\n".join(f"{row['claim']} {row['says']}\n  {brief(row)}" for row in rows)
    return {"text/html": "<div style='max-width: 46em'>" + "".join(parts) + "</div>",
            "text/plain": plain}


def _plain(row):
    """What is known of a claim, in lines."""
    lines = [] if row["word"] != "missing" else [row["verdict"]]
    lines += [f"{each['condition']}: {each['words']}: {_holds(each)}" for each in row["conditions"]]
    lines += [f"{each['fact'].replace('_', ' ')}: {_yes(each['seen'])}" for each in row["facts"]]
    lines += [f"{_upper(row['note'])}."] if row["note"] else []
    lines += [f"What is compared: {row['statistic']}."]
    return [*lines, f"In print, {row['source']}: {row['source_value']}.", *_made(row),
            f"What would change our mind: {row['changes']}."]


def _link(row):
    """Where the verdict's cell stands, as a link that JupyterLab follows."""
    if not row["notebook"]:
        return []
    place = f"{row['notebook']}.ipynb#{quote(row['heading'].replace(' ', '-'))}"
    return [f'The cell: <a href="{place}">notebook {row["notebook"][:2]}, '
            f'{escape(row["heading"])}</a>']


def _holds(condition):
    return {True: "holds", False: "fails", None: "open"}[condition["holds"]]


def _yes(seen):
    return {True: "yes", False: "no", None: "not measured"}[seen]


def _made(row):
    """How it was found: a line for each record, with bases, machines and date."""
    lines = []
    for made in row["records"]:
        bases = sorted({each["bases"] for each in row["conditions"]
                        if each["record"] == made["record"]})
        over = f", {' and '.join(map(str, bases))} bases" if bases else ""
        lines.append(f"{row['how'].capitalize()}{over}: {made['record']}, {made['date']}, "
                     + "; ".join(made["by"])
                     + (" (old: it no longer comes out)" if row["old"] else ""))
    return lines


def markdown(found):
    """The ledger as a page: at a glance, claim by claim, our own bets, contradictions in print."""
    lines = ["# What people say about LoRA, and what came out", "",
             "Made by `python build.py claims` out of the course's records and notebooks. The same "
             "as data: [claims.json](claims.json).", "", READ, "", "## At a glance", "",
             "| | people say | verdict |", "|---|---|---|"]
    lines += [f"| [{row['claim']}](#{row['claim'].lower()}) | {row['says']} | {brief(row)} |"
              for row in found["claims"]]
    for row in found["claims"]:
        lines += ["", *_section(row)]
    lines += ["", "## Our own bets", "",
              "Made before the records were. Those that came true least come first.", "",
              *_predicted(found["predictions"])]
    lines += ["", "## Where papers contradict each other"]
    for each in found["disputes"]:
        lines += ["", f"**{each['asks']}**", ""]
        lines += [f"- {who}: {says}." for who, says in each["sides"]]
        lines += [f"- *Measured here*: {_cell(line)}." for line in each["town"]]
        lines += [f"- *What we can't say*: {each['cannot']}"]
    return "\n".join(lines) + "\n"


def _predicted(predictions):
    """Our own bets, in lines: the least true first, and last what is not recorded yet."""
    def true(bet):
        came = [each["outcome"] in each["said"] for each in bet["contrasts"]]
        return sum(came) / len(came) if came else 2

    lines = []
    for bet in sorted(predictions, key=true):
        came = f"{true(bet):.0%} came true" if bet["contrasts"] else "not recorded yet"
        lines.append(f"- **{bet['prediction']}**, {came}: {bet['says']}")
        lines += [f"  - {_cell(each['condition'])}: {' or '.join(each['said'])}, we said; it is "
                  f"{_cell(each['words'])}" for each in bet["contrasts"]]
    return lines


def _section(row):
    """The page's part on one claim, in lines."""
    verdict = row["verdict"] if row["word"] == "missing" else f"{_upper(brief(row))}."
    lines = [f"## {row['claim']}", "", f"> {row['says']}", "", f"**{verdict}**", ""]
    if row["conditions"]:
        lines += ["| condition | came to | holds |", "|---|---|---|"]
        lines += [f"| {_cell(each['condition'])} | {_cell(each['words'])} | "
                  f"{_holds(each)} |"
                  for each in row["conditions"]] + [""]
    lines += [f"- {each['fact'].replace('_', ' ')}: {_yes(each['seen'])}" for each in row["facts"]]
    lines += [f"- *{_cell(_upper(row['note']))}.*"] if row["note"] else []
    lines += [f"- *What is compared*: {_cell(row['statistic'])}.",
              f"- *In print*, {row['source']}: {row['source_value']}."]
    lines += [f"- {line}" for line in _made(row)]
    lines += [f"- *What would change our mind*: {row['changes']}."]
    if row["notebook"]:
        lines += [f"- *The cell*: [notebook {row['notebook'][:2]}](../notebooks/{row['notebook']}"
                  f".ipynb), \"{row['heading']}\"."]
    return lines


def _cell(words):
    return words.replace("<", "`<").replace(">", ">`").replace("|", "\\|")


def readme(text, rows, chosen=("C5", "C12", "C10")):
    """README's text with three verdicts between its marks.

    Of each verdict, the largest effect of those conditions that hold, that fail, that are open.
    """
    lines = []
    for row in sorted((row for row in rows if row["claim"] in chosen),
                      key=lambda row: chosen.index(row["claim"])):
        lines.append(f"- *{row['says']}* **{_upper(brief(row))}.**")
        for holds in (True, False, None):
            alike = [each for each in row["conditions"] if each["holds"] is holds]
            for each in sorted(alike, key=_size)[-1:]:
                lines.append(f"  - {_cell(each['condition'])}: {_cell(each['words'])}")
    return BLOCK.sub(lambda hit: hit[1] + "\n".join(lines) + "\n" + hit[2], text)


def _upper(words):
    return words[:1].upper() + words[1:]


def _size(condition):
    """How far an effect lies from none."""
    effect = condition["effect"]
    return abs(math.log(effect)) if condition["kind"] == "factor" else abs(effect)
