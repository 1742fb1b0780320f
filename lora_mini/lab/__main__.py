"""Make a record anew: what takes longer than a lesson, measured over bases.

    python -m lora_mini.lab arms        makes lora_mini/lab/records/arms.json
    python -m lora_mini.lab all         makes all of them: some hours on two cores

What was run stands in a journal in your own folder: stopped, it goes on where it was.
"""

import argparse

from lora_mini.lab import record, sweep
from lora_mini.lab.makers import MAKERS


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lora_mini.lab", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=(*MAKERS, "all"), nargs="+", help="which record to make")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    options = parser.parse_args(arguments)
    for name in MAKERS if "all" in options.name else options.name:
        code = record.code_hash(name)
        journal = sweep.Journal(name, code)
        record.write(name, MAKERS[name](options.jobs, journal), code, journal.by)


if __name__ == "__main__":
    main()
