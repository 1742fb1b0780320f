"""Which probe finds which specimen: counted, and drawn."""

from lora_mini.desk.figures import SECOND, axes
from lora_mini.lab.ward import PROBES


def alarmed(ward, patients):
    """{(probe, name): whether the probe is alarmed} for {name: Patient}."""
    return {(probe, name): bool(alarming(getattr(ward, probe)(patient)))
            for probe, (_, alarming) in PROBES.items() for name, patient in patients.items()}


def finds(broken, mended):
    """{probe: names of the specimens by which it is alarmed when broken, and not when mended}."""
    return {probe: [name for (asked, name), red in broken.items()
                    if asked == probe and red and not mended[probe, name]] for probe in PROBES}


def chart(broken, mended):
    """A figure of the two: a filled dot where a probe finds a specimen, an open one where it is
    alarmed by both."""
    names, found = list(dict.fromkeys(name for _, name in broken))[::-1], finds(broken, mended)
    fig, ax = axes(7.4, 4.4)
    for (probe, name), red in broken.items():
        if red:
            ax.plot(list(PROBES).index(probe), names.index(name), "o", ms=8, color=SECOND,
                    mfc=SECOND if name in found[probe] else "none")
    ax.set_xticks(range(len(PROBES)), [f"{words} ({len(found[probe])})" for probe, (words, _)
                                       in PROBES.items()], rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlim=(-0.5, len(PROBES) - 0.5), ylim=(-0.7, len(names) - 0.3))
    return fig
