"""The public surface: what is exported, documented, tested and imported."""

import ast
import functools
import inspect
import subprocess
import sys
import typing
from importlib.metadata import requires, version

import optax
import pytest

import optax_dtnh
from optax_dtnh import models, regularizers
from tests.core.uses import USES
from tests.pages.pages import ROOT

# The core is jax and optax; these belong to the extras.
EXTRAS = ["flax", "orbax", "grain", "tensorflow_datasets", "safetensors", "huggingface_hub"]
EXTRAS += ["torch", "sklearn", "matplotlib"]


def public(module):
    return {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}


def is_rule(function):
    return list(inspect.signature(function).parameters) == ["dot", "ref_sq", "reg_sq"]


PARTS = {n: x for n, x in public(models).items() if n in models.__all__}  # networks, functions
SIZES = {n: x for n, x in PARTS.items() if isinstance(x, functools.partial)}
BLOCKS = {"Basic", "Bottleneck", "CheckpointError"}
DOCUMENTED = {name: getattr(optax_dtnh, name) for name in optax_dtnh.__all__}
DOCUMENTED |= {name: getattr(regularizers, name) for name in regularizers.__all__}
FUNCTIONS = {name: x for name, x in DOCUMENTED.items() if inspect.isfunction(x)}
EXPLAINED = FUNCTIONS | {n: x for n, x in PARTS.items() if n not in BLOCKS | SIZES.keys()}


@pytest.mark.parametrize("module", [optax_dtnh, regularizers, models])
def test_all_lists_what_the_package_exports_and_nothing_else(module):
    exported = {name for name, value in public(module).items() if not inspect.ismodule(value)}
    exported |= {"regularizers"} & set(public(module))
    assert sorted(exported) == sorted(module.__all__)


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_function_has_an_example_and_annotated_documented_arguments(name):
    value = EXPLAINED[name]
    doc = inspect.getdoc(value) or ""
    assert ("r' = " in doc) if is_rule(value) else (">>>" in doc)
    arguments = inspect.signature(value.__init__ if inspect.isclass(value) else value).parameters
    for argument in arguments.values():
        if argument.name != "self":
            assert argument.annotation is not inspect.Parameter.empty, argument
            assert is_rule(value) or f"\n  {argument.name}: " in doc, argument


def test_every_transformation_has_rows_in_the_contract_suite():
    returned = {name: typing.get_type_hints(x).get("return") for name, x in FUNCTIONS.items()}
    found = {n for n, x in returned.items() if x is optax.GradientTransformationExtraArgs}
    assert found == {"add_l2_sp", "dtnh", "scale_by_adam_dtnh", "transform_pair"}
    assert {row.split(",")[0] for row in USES} == found


@pytest.mark.parametrize("name", regularizers.__all__)
def test_every_regularizer_has_a_public_path_and_a_section(name):
    assert f"| `{name}` |" in (ROOT / "docs/regularizers.md").read_text()
    assert getattr(regularizers, name).__module__ == "optax_dtnh.regularizers"


# --- the imports


def imports():
    """From each part of the package to the parts that it imports, sub-packages as one part."""
    found = {}
    for path in (ROOT / "optax_dtnh").rglob("*.py"):
        part = path.relative_to(ROOT / "optax_dtnh").with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optax_dtnh"):
                bare = node.module == "optax_dtnh"
                names = [alias.name for alias in node.names] if bare else [node.module[11:]]
                found.setdefault(part, set()).update(name.split(".")[0] for name in names)
    return {part: targets - {part} for part, targets in found.items()}


def test_imports_point_one_way():
    reached = imports()
    for _ in reached:
        reached = {
            part: targets.union(*(reached.get(via, set()) for via in targets))
            for part, targets in reached.items()
        }
    assert not [part for part, targets in reached.items() if part in targets]
    factories = {"_transform", "_anchor", "_metric"}
    assert not factories & reached["regularizers"]
    assert not factories & reached["models"]
    extras = {"models", "finetune"}
    assert not [part for part in reached.keys() - extras if extras & reached[part]]


def test_importing_the_core_imports_none_of_the_extras():
    code = f"import sys, optax_dtnh; print([m for m in {EXTRAS} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_core_depends_on_jax_and_optax_alone_and_not_on_the_broken_jax():
    core = [r for r in requires("optax-dtnh") or [] if "extra ==" not in r]
    assert sorted(r.split(">")[0].split("!")[0] for r in core) == ["jax", "optax"]
    assert any("!=0.10.2" in r for r in core)
    assert version("jax") != "0.10.2"
