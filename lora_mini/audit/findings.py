"""What an audit says: one fault, where it is, how large, and what to do about it."""

from dataclasses import dataclass

PAGE = "docs/my-adapter-does-not-learn.md"  # which leads on to the section of notebook 14
SECTIONS = {  # how a finding begins: where the page has it
    "B has not moved": "b-stays-zero-whether-the-loss-falls-or-not",
    "trainable parameters are missing from the optimizer": "optimizer-too-early",
    "frozen parameters of the base are in the optimizer": "optimizer-too-early",
    "the optimizer holds parameters that are not in the model": "optimizer-too-early",
    "note: few of the linear layers": "another-models-names",
    "the learning rate is low": "a-copied-rate",
    "the update is too small": "a-copied-rate",
    "the scale doesn't fit": "the-rank-not-divided-by",
    "the base trains": "a-base-left-trainable",
    "the base's parameters changed": "a-base-left-trainable",
    "with the adapter off the outputs": "a-base-left-trainable",
    "the file's names begin otherwise": "names-that-dont-fit",
    "tensors have other names": "names-that-dont-fit",
    "the file doesn't say its alpha": "alpha-lost",
    "the file's scale is not": "alpha-lost",
    "merged twice": "merged-twice",
    "the merged file's weights are the base's": "swallowed-in-16-bits",
    "the merged file's weights are neither": "merged-into-four-bits",
    "an adapter sits on one side of a tie": "merged-into-a-tied-head",
    "a tie is torn": "merged-into-a-tied-head",
    "dropout is in another mode": "dropout-awake",
    "the end of the sentence is masked": "no-end-in-the-loss",
}


@dataclass(frozen=True)
class Finding:
    """One fault. what: its kind, in words. where: names of layers, parameters or tensors.

    how_large: the numbers, with their units, as a text. remedy: what to do. more: where the course
    shows such a fault, "" if it doesn't. As a text: one line.
    """

    what: str
    where: str
    how_large: str
    remedy: str

    @property
    def more(self):
        """The section of PAGE about such a fault, or ""."""
        section = next((to for words, to in SECTIONS.items() if self.what.startswith(words)), "")
        return section and f"{PAGE}#{section}"

    def __str__(self):
        line = f"{self.what}: {self.where} ({self.how_large}); {self.remedy}"
        return " ".join(f"{line}{self.more and f'; see {self.more}'}".split())


class Findings(list):
    """A list of Findings. unseen: what could not be looked at, and what it would have taken.

    As a text: a line for each finding, and one for what is unseen.
    """

    def __init__(self, found, unseen=()):
        super().__init__(found)
        self.unseen = tuple(unseen)

    def __str__(self):
        lines = list(map(str, self)) or ["no fault found"]
        return "\n".join(lines + [f"not looked at: {'; '.join(self.unseen)}"] * bool(self.unseen))


def listed(names, most=4):
    """The first few of some names, and how many there are beside them."""
    names = list(dict.fromkeys(names))
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def share(some, all_):
    """Two counts as "3 of 8 (38 %)"."""
    return f"{some:,} of {all_:,} ({some / max(all_, 1):.0%})"
