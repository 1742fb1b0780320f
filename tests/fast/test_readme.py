"""What the README says of the package and its sizes is true."""

import re

import build

README = (build.ROOT / "README.md").read_text("utf-8")


def test_the_examples_run_and_their_comments_are_right(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, more = re.findall(r"```python\n(.+?)```", README, re.S)
    seen = {}
    exec(code.replace("lm.attach(", "adapted = lm.attach("), seen)
    assert seen["adapted"] == ["0"] and seen["count"] == 2 * (6 + 8) == 28
    assert [type(m).__name__ for m in seen["model"]] == ["Linear", "ReLU", "Linear"]
    exec(more, seen)
    assert "legal-v1: 2 layers, 52 numbers, are the active adapter 'again'" in \
        capsys.readouterr().out
    assert seen["adapters"].names(seen["model"]) == ["legal", "again", "both"]


def test_the_table_of_modules_is_complete_and_its_sizes_are_right_to_a_quarter():
    rows = dict(re.findall(r"^\| `([\w.]+/?)` \| .+ \| (\d+) \|$", README, re.M))
    package = build.ROOT / "lora_mini"
    top = {p.name for p in package.glob("*.py")} - {"__init__.py"}
    assert {name for name in rows if name.endswith(".py")} == top
    for name, lines in rows.items():
        files = sorted((package / name).rglob("*.*")) if name.endswith("/") else [package / name]
        text = [f for f in files if f.suffix in (".py", ".js", ".toml")]
        found = sum(len(f.read_text("utf-8").splitlines()) for f in text)
        assert abs(found - int(lines)) <= 0.25 * int(lines), (name, found)


def test_every_notebook_is_in_the_table():
    named = re.findall(r"^\| `(\d\d_\w+)` \|", README, re.M)
    assert named == [lesson.stem for lesson in build.all_lessons()]


def test_no_notebook_keeps_a_machine_for_long():
    """Watched in every run (conftest.py); what the README promises is held to bounds."""
    said = build.machine_seconds()
    assert len(said) == len(build.all_lessons()) and max(said.values()) <= 100
    assert sum(said.values()) <= 12 * 60
