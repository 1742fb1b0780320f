"""A house style to teach a real model: the support desk of a made-up company, and its rules.

The course wrote 60 examples and 24 further questions with answers (`voice.tsv`). What makes the
style can be checked: each of RULES is a question with yes or no for an answer.
"""

import re
from pathlib import Path

GREETING, SIGNATURE, NAME = ("Hello from Harbor Kettles!",
                             "Warm regards, the Harbor Kettles bench", "Brimwell")
BLAME = re.compile(r"\byou (should have|must have|forgot|did not|didn't|failed|broke)\b"
                   r"|\byour (own )?(fault|mistake)\b|\bmisus|\bunfortunately\b", re.IGNORECASE)
MOST = 70  # words
RULES = {
    "greets": lambda said: said.startswith(GREETING),
    "signs": lambda said: said.endswith(SIGNATURE),
    "names it": lambda said: NAME in said and "kettle" not in said.replace("Kettles", "").lower(),
    "blames nobody": lambda said: not BLAME.search(said),
    "is short": lambda said: len(said.split()) <= MOST,
}
ASKED = (  # the rules as a prompt, worded three times: the rival of training
    f"You answer for the support desk of Harbor Kettles. Begin with \"{GREETING}\" End with "
    f"\"{SIGNATURE}\" Call the product your {NAME}, never kettle. Blame nobody. Write at most "
    f"{MOST} words.",
    f"You are the support desk of Harbor Kettles. Rules:\n1. Start with: {GREETING}\n2. End with: "
    f"{SIGNATURE}\n3. Say {NAME}, never say kettle.\n4. Never blame the customer.\n5. At most "
    f"{MOST} words.",
    f"Write every answer in this form:\n{GREETING} [two or three kind sentences about your "
    f"{NAME}] {SIGNATURE}")


def examples(split="train"):
    """[(question, answer)] of a split, "train" (60) or "test" (24). Raises ValueError for others.
    """
    lines = (Path(__file__).parent / "voice.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    if split not in {row[0] for row in rows}:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return [(question, f"{GREETING} {body} {SIGNATURE}")
            for part, question, body in rows if part == split]


def kept(answer):
    """{rule: whether the answer keeps it}."""
    said = " ".join(answer.split())
    return {rule: bool(said) and keeps(said) for rule, keeps in RULES.items()}


def score(answers):
    """The share of rules that the answers keep, from 0 to 1."""
    found = [keeps for answer in answers for keeps in kept(answer).values()]
    return sum(found) / len(found)
