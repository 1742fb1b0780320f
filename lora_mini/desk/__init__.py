"""What the notebooks put before the reader: figures, sliders, bets, verdicts, checks."""

from lora_mini.desk.bets import bet, settle
from lora_mini.desk.figures import show
from lora_mini.desk.verdicts import expect, verdict

__all__ = ["bet", "expect", "settle", "show", "verdict"]
