"""How things are measured here: in turns, in fresh processes, and counted.

Times are of one machine and one hour: what travels are ratios of things that took turns. So every
turn's time is kept, and a ratio is formed turn by turn before its median is taken.
"""

import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

PACKAGES = ("torch", "numpy", "peft", "loralib", "torchtune", "torchao", "transformers",
            "safetensors")
GATHERS = ("embedding", "index_select", "index", "gather")  # they read only what they give
WRITE_NOTHING = ("empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view")


def in_turns(acts, count, least=0.005, seed=0):
    """{name: [milliseconds a call, one a turn]} of {name: function}, in a new order each turn.

    What is short is called several times a turn, until `least` seconds are filled; a call of each,
    or two where it is shorter than a second, come before the first turn, and are not counted. A
    function with an attribute `passes` does as many things a call: its time is divided by them.
    """
    calls, times, rng = {}, {name: [] for name in acts}, random.Random(seed)
    for name, act in acts.items():
        once = clocked(act)
        once = clocked(act) if once < 1 else once  # the first call is slow
        calls[name] = max(1, round(least / max(1e-9, once)))
    for _ in range(count):
        for name in rng.sample(list(acts), len(acts)):
            start = time.perf_counter()
            for _ in range(calls[name]):
                acts[name]()
            spent = 1000 * (time.perf_counter() - start) / calls[name]
            spent /= getattr(acts[name], "passes", 1)
            times[name].append(float(f"{spent:.4g}"))
    return times


def clocked(act):
    """Seconds of one call."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def quartiles(values):
    """(lower quartile, median, upper quartile); of fewer than three values, their ends."""
    if len(values) < 3:
        return min(values), statistics.median(values), max(values)
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def ratio(times, others):
    """Quartiles of times / others, turn by turn."""
    return quartiles([a / b for a, b in zip(times, others, strict=True)])


# Counts


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.flop, self.moved = 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, operation._overloadpacket
        if packet not in flop_registry:  # such as "linear", which inference mode leaves whole
            with self:
                out = operation.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = operation(*args, **kwargs)
        if packet in flop_registry:
            self.flop += flop_registry[packet](*args, **kwargs, out_val=out)
        if not operation.is_view and (name := packet.__name__) not in WRITE_NOTHING:
            read = [out] if name in GATHERS else [args, kwargs]
            self.moved += sum(map(_size, tree_leaves([*read, out])))
        return out


def _size(leaf):
    if not isinstance(leaf, torch.Tensor):
        return 0
    return min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())


def counts(act):
    """{"flop": of all matrix products, "moved": bytes} of one call, as PyTorch's operations say.

    moved: what each operation reads and writes, each tensor once: as if no cache kept anything.
    What an operation does inside itself is not seen. Global hooks, which PyTorch's own flop counter
    sets, would send `LoRALinear` on its plain path; a dispatch mode does not.
    """
    with _Count() as count:
        act()
    return {"flop": count.flop, "moved": count.moved}


def operators(act, most=8, calls=3):
    """{operator: its share of the processor's own time} of some calls, the largest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(calls):
            act()
    own = {e.key: e.self_cpu_time_total for e in seen.key_averages()}
    whole = sum(own.values()) or 1
    top = sorted(own, key=own.get, reverse=True)[:most]
    return {key.removeprefix("aten::"): round(own[key] / whole, 4) for key in top}


# Memory


def resident():
    """Megabytes (10^6 bytes) that this process holds now."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def most_resident(act):
    """The most megabytes that this process holds while `act()` runs, looked at each millisecond."""
    seen, done = [resident()], threading.Event()

    def watch():
        while not done.wait(0.001):
            seen.append(resident())
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        act()
    finally:
        done.set()
        watcher.join()
    return max(*seen, resident())


def afresh(*arguments):
    """What this command prints as JSON in a process of its own, or None where it can't be made."""
    script = Path(__file__).with_name("memory.py")
    said = subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True,
                          text=True)
    if said.returncode:
        raise RuntimeError(said.stderr[-2000:])
    return json.loads(said.stdout.splitlines()[-1])


# Where


def machine(threads):
    """What a reader has to know of the machine: no path, no name of a host."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": _processor(), "cores": os.cpu_count(), "memory_gb": _memory(),
            "system": platform.system(), "architecture": platform.machine(),
            "python": platform.python_version(), "threads": threads,
            "date": time.strftime("%Y-%m-%d"), "versions": versions}


def _processor():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory():
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (AttributeError, ValueError, OSError):
        return None
