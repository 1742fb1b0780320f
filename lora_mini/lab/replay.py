"""Does what was recorded still come out? Each cell once more, on the base that ships.

    python -m lora_mini.lab.replay arms       some four minutes on two cores

The base that ships chose no rate and reports in no record. Each cell is redone on it, with a seed
of its own, and its total is held against the record's prediction interval, on a log scale. Of a
hundred cells about five may lie outside by luck; the command fails if more than 15 percent do.
What came out is noted in the record: by it the ledger of claims knows a record that is old.
"""

import argparse
import datetime
import math

from lora_mini.desk.intervals import prediction
from lora_mini.lab import parts, record, sweep
from lora_mini.lab.bases import SHIPPED

ALLOWED = 0.15
RUNNERS = {"arms": parts.run, "variants": parts.run, "facts": parts.memorized}


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lora_mini.lab.replay", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=RUNNERS, help="which record to redo")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    options = parser.parse_args(arguments)
    cells = record.load(options.name)["cells"]
    with sweep.workers(redo, options.jobs) as run:
        found = run(options.name, [(options.name, cell) for cell in cells])
    missed = sum(not inside(cell, total) for cell, total in zip(cells, found, strict=True))
    print(f"{missed} of {len(cells)} cells lie outside their prediction interval")
    record.note(options.name, replayed={"outside": missed, "of": len(cells),
                                        "code": record.code_hash(options.name),
                                        "date": f"{datetime.date.today()}"})
    if missed > ALLOWED * len(cells):
        parser.exit(1, "more than luck allows: make the record anew, or find what changed\n")


def redo(name, cell):
    """One run of a cell at its recorded rate, on the base that ships: its total."""
    return RUNNERS[name](cell, cell["best"], SHIPPED)["total"]


def inside(cell, total):
    """Print where a cell's total landed; was it where the record predicts?"""
    near = prediction([math.log(max(each, 1e-4)) for each in cell["total"]], floor=math.log(1.1))
    landed = total is not None and near.holds(math.log(max(total, 1e-4)))
    said = {key: value for key, value in cell.items() if not isinstance(value, (list, dict))}
    print(f"{'inside ' if landed else 'OUTSIDE'} {total} in [{math.exp(near.low):.4g}, "
          f"{math.exp(near.high):.4g}]  {said}")
    return landed


if __name__ == "__main__":
    main()
