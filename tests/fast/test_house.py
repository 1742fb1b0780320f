"""Imports run one way through the package, and a page stays a page."""

import ast

import pytest

import build

PACKAGE = build.ROOT / "lora_mini"
GROUND = {"svd", "step", "lora", "targets", "copies", "ledger", "refusals"}
LLAMA = {"gguf_file", "llama"}
MAY = {  # a room or file: what of lora_mini it may import
    **{name: GROUND for name in GROUND},
    "world": {"world", "ledger"},
    "model": GROUND,
    "quant": GROUND,
    "shapes": {"quant"},
    "blocks": {"quant"},
    "gguf_file": set(),
    "llama": set(),
    "variants": GROUND,
    "audit": GROUND | {"model", "variants", "adapters", "audit"},
    "adapters": GROUND | LLAMA | {"model", "variants", "adapters"},
    "desk": GROUND | {"desk"},
    "lab": GROUND | LLAMA | {"model", "variants", "quant", "blocks", "audit", "adapters", "world",
                             "desk", "lab", ""},
    "checks": GROUND | {"desk", "checks", "audit", "world", ""},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """The parts of lora_mini that a file imports; "" is the package itself."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, _, rest = name.partition(".")
            if root == "lora_mini":
                first = rest.split(".")[0]
                yield first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").exists() \
                    else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_what_lies_below_it(path):
    room = path.parent.name if path.parent != PACKAGE else path.stem
    if room != "__init__":
        assert set(imported(path)) <= MAY[room]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_page_stays_a_page(path):
    assert len(path.read_text("utf-8").splitlines()) <= 250
