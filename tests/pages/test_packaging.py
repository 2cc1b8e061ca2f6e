"""What strangers install: the contents of wheel and sdist, and the wheel alone in a new place."""

import importlib.machinery
import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import optax_dtnh
from tests.pages.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def script(name):
    """A script of `.ci`, imported."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / ".ci" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", optax_dtnh.__version__)
    assert f"## {optax_dtnh.__version__} – " in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == optax_dtnh.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"] == [{"name": "The optax_dtnh authors"}]
    paper = citation["preferred-citation"]
    readme = (ROOT / "README.md").read_text()
    assert f"title     = {{{paper['title']}}}" in readme
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert f"author    = {{{names}}}" in readme
    assert paper["url"] in readme
    assert paper["identifiers"][0]["value"].split(":")[1] in paper["url"]


@pytest.mark.parametrize("absent", ["flax", "safetensors", "huggingface_hub"])
def test_without_its_extra_the_models_say_what_to_install(absent, tmp_path):
    code = f"""
import sys
import optax_dtnh
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *a, **k: None if name == "{absent}" else find(name, *a, **k)
import optax_dtnh.models
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    expected = f"`{absent}` is not installed, but `optax_dtnh.models` needs it. Run"
    assert done.returncode == 1
    assert f"ModuleNotFoundError: {expected} `pip install 'optax-dtnh[models]'`." in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.long
def test_the_wheel_holds_the_package_and_its_license_alone(wheel):
    assert script("contents").wheel_problems(wheel) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("", "models refused, finetune refused"),
        ("[models]", "models imported, finetune refused"),
        ("[finetune]", "models imported, finetune runs"),
    ],
)
def test_the_wheel_alone_runs_the_readme_and_imports_what_its_extras_promise(wheel, extra, said):
    found = script("packages").check(sys.executable, [f"{wheel}{extra}"])
    assert said in found
    assert f"python {sys.version.split()[0]}" in found
