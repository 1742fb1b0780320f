"""Make a record anew: what takes longer than a lesson, measured over seeds.

    python -m lora_mini.lab 06          makes lora_mini/lab/records/06.json
    python -m lora_mini.lab all         makes all of them: about two hours on two cores
"""

import argparse
import importlib
import time

from lora_mini.lab import record

NOTEBOOKS = ("06", "07", "08", "09")


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lora_mini.lab", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=(*NOTEBOOKS, "all"), help="which record to make")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--only", help="of 07 or 08: make this part anew and keep the rest")
    options = parser.parse_args(arguments)
    if options.only and options.name not in ("07", "08"):
        parser.error("--only is for 07 and 08")
    for name in NOTEBOOKS if options.name == "all" else [options.name]:
        maker = importlib.import_module(f"lora_mini.lab.nb{name}")
        part, kept = ({"only": options.only}, record.load(name)) if options.only else ({}, None)
        start, code = time.perf_counter(), record.code_hash()
        content = maker.make(options.jobs, **part)
        if set(content) == {"base"}:
            parser.error(f"record {name} has no part {options.only!r}")
        record.write(name, content, time.perf_counter() - start, code, kept)


if __name__ == "__main__":
    main()
