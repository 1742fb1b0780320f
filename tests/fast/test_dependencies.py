"""pyproject.toml and environment.yml name the same dependencies, within compatible bounds."""

import re
import tomllib

import pytest

import build

CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "playwright": "playwright-python"}
PROJECT = tomllib.loads((build.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]
NEEDS = list(dict.fromkeys([  # peft is in two of them
    *PROJECT["dependencies"], *OPTIONAL["notebooks"], *OPTIONAL["test"], *OPTIONAL["llm"]]))


def split(requirement):
    name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
    return name, bounds.replace("==", "=").replace(" ", "")


def from_environment():
    text = (build.ROOT / "environment.yml").read_text("utf-8")
    assert "conda-forge" in text
    return dict(split(line) for line in re.findall(r"^ +- ([\w-]+[<>=].*)$", text, re.M))


def test_both_files_name_the_same_packages_and_bounds():
    expected = {CONDA.get(name, name): bounds for name, bounds in map(split, NEEDS)}
    found = from_environment()
    assert found.pop("python") == PROJECT["requires-python"]
    assert found == expected


def test_the_newest_torch_that_the_range_admits_is_2_13():
    assert from_environment()["pytorch"].endswith("<2.14")


def test_every_dependency_has_its_reason_in_the_readme():
    table = (build.ROOT / "README.md").read_text("utf-8").split("## Dependencies")[1]
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]+\| (.+) \|$", table.split("\n## ")[0], re.M)
    assert [name for name, _ in rows] == [split(need)[0] for need in NEEDS]
    assert all(len(reason.split()) >= 4 for _, reason in rows)


@pytest.mark.parametrize("need", NEEDS)
def test_every_dependency_is_used(need):
    name = split(need)[0]
    here = {"jupyterlab": ["start.py"], "pytest": ["start.py"], "matplotlib": ["lora_mini"],
            "ipywidgets": ["lessons"], "nbval": ["conftest.py"], "peft": ["tests"],
            "jupytext": ["build.py"], "nbclient": ["build.py"], "playwright": ["tests"],
            "hypothesis": ["tests"], "notebook": ["tests"], "gguf": ["tests"]}
    places = [build.ROOT / place for place in here.get(name, ["lora_mini"])]
    files = [f for p in places for f in ([p] if p.is_file() else sorted(p.rglob("*.py")))]
    said = "".join(f.read_text("utf-8") for f in files if f.name != "test_dependencies.py")
    assert re.search(rf"(import|from|-m\W+) *{name}\b", said) or f'"{name}"' in said
