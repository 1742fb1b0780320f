"""Sentences in lines that a projector shows whole."""

import textwrap

WIDTH = 80


def say(words, indent=0):
    """Print a sentence, wrapped at WIDTH columns, `indent` of them left free."""
    print(textwrap.fill(words, WIDTH, initial_indent=" " * indent,
                        subsequent_indent=" " * (indent + 2 * bool(indent)),
                        break_long_words=False, break_on_hyphens=False))
