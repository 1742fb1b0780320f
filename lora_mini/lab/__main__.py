"""Make a record anew: what takes longer than a lesson, measured over bases.

    python -m lora_mini.lab arms        makes lora_mini/lab/records/arms.json
    python -m lora_mini.lab all         makes all of them: some hours on two cores

What was run stands in a journal in your own folder: stopped, it goes on where it was.
"""

import argparse
import time

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
        start, code = time.perf_counter(), record.code_hash()
        content = MAKERS[name](options.jobs, sweep.Journal(name, code))
        device = content["cells"][0].get("device", "cpu")
        record.write(name, content, time.perf_counter() - start, code, device)


if __name__ == "__main__":
    main()
