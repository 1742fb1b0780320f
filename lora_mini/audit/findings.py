"""What an audit says: one fault, where it is, how large, and what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One fault. what: its kind, in words. where: names of layers, parameters or tensors.

    how_large: the numbers, with their units, as a text. remedy: what to do. As a text: one line.
    """

    what: str
    where: str
    how_large: str
    remedy: str

    def __str__(self):
        line = f"{self.what}: {self.where} ({self.how_large}); {self.remedy}"
        return " ".join(line.split())


def listed(names, most=4):
    """The first few of some names, and how many there are beside them."""
    names = list(dict.fromkeys(names))
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def share(some, all_):
    """Two counts as "3 of 8 (38 %)"."""
    return f"{some:,} of {all_:,} ({some / max(all_, 1):.0%})"
