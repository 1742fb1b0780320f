"""pytest for the whole project: one environment, and nbval with its known holes closed.

It lies at the root to reach notebooks/ as well as tests/. The guards patch private parts of nbval,
which is why pyproject.toml pins it, and why faults/test_guards.py plants a fault for each.
"""

import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from queue import Empty

import build

os.environ.update(build.ENVIRONMENT)  # before torch and numpy are imported
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(build.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

import pytest  # noqa: E402
from nbval import kernel, plugin  # noqa: E402

plugin.metadata_tags["measured"] = ("check", False)  # run, not compared
plugin.metadata_tags["needs-llm"] = ("skip", not build.has_llm())


def pytest_configure(config):
    config.lora_mini_home = tempfile.TemporaryDirectory(prefix="lora_mini_home_")
    os.environ["LORA_MINI_HOME"] = config.lora_mini_home.name


def pytest_unconfigure(config):
    config.lora_mini_home.cleanup()


def pytest_terminal_summary(terminalreporter):
    """How long each notebook took, beside what the README says: watched, but a clock is no test."""
    took = Counter()
    for report in (one for found in terminalreporter.stats.values() for one in found):
        if hasattr(report, "duration") and report.nodeid.split("::")[0].endswith(".ipynb"):
            took[Path(report.nodeid.split("::")[0]).stem] += report.duration
    if took:
        said = build.machine_seconds()
        terminalreporter.section("seconds a notebook (in the README)")
        for name, seconds in sorted(took.items()):
            slow = name in said and seconds > 2 * said[name] + 10
            terminalreporter.line(f"{name:28s}{seconds:6.0f}{f'({said.get(name)})':>7s}"
                                  f"{'  more than twice as long' if slow else ''}")


def pytest_collection_modifyitems(items):
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None:  # HTML holds pictures, whose bytes differ by machine; the words beside
            item.parent.skip_compare = {*item.parent.skip_compare, "text/html"}  # it are compared
        if cell is not None and (unknown := set(cell.metadata.get("tags", [])) - build.TAGS):
            raise pytest.UsageError(f"{item.nodeid}: unknown tag {sorted(unknown)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """nbval runs a cell without execution count but compares nothing: that must not pass."""
    cell = getattr(item, "cell", None)
    if cell is None or item.options["skip"]:
        return
    if cell.source.strip() and cell.execution_count is None:
        pytest.fail("the cell was never executed: run python build.py", pytrace=False)


def _execute_with_history(self, source, allow_stdin=None):
    """nbval stores no history, and then IPython ignores a trailing semicolon."""
    return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


def _await_reply_while_alive(self, msg_id, timeout=None):
    """nbval waits for a dead kernel until the cell's time is up; notice it within a second."""
    end = time.monotonic() + (timeout or 600)
    while time.monotonic() < end:
        try:
            message = self.get_message(stream="shell", timeout=1)
        except Empty:
            if not self.km.is_alive():
                raise RuntimeError("the kernel died (out of memory, or a crash)") from None
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            return
    raise Empty


kernel.RunningKernel.execute_cell_input = _execute_with_history
kernel.RunningKernel.await_reply = _await_reply_while_alive
