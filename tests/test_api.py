"""The public surface: what is exported, documented and imported."""

import inspect
import subprocess
import sys
from importlib.metadata import requires, version

import optax_dtnh
from optax_dtnh import regularizers

# The core is jax and optax; these belong to the extras.
EXTRAS = ["flax", "orbax", "grain", "tensorflow_datasets", "safetensors", "sklearn", "matplotlib"]


def public(module):
    return {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}


def test_all_lists_what_the_package_exports_and_nothing_else():
    exported = {
        name for name, value in public(optax_dtnh).items() if not inspect.ismodule(value)
    } | {"regularizers"}
    assert sorted(exported) == sorted(optax_dtnh.__all__) == optax_dtnh.__all__


def documented():
    """Every public name and the functions of `regularizers`."""
    names = {name: getattr(optax_dtnh, name) for name in optax_dtnh.__all__}
    of_module = {
        name: value
        for name, value in public(regularizers).items()
        if getattr(value, "__module__", None) == regularizers.__name__
    }
    return names | of_module


def functions():
    return {name: value for name, value in documented().items() if inspect.isfunction(value)}


def is_rule(function):
    return list(inspect.signature(function).parameters) == ["dot", "ref_sq", "reg_sq"]


def test_every_public_name_has_a_docstring():
    assert {"l2_sp", "feature_distance", "dtnh", "truncate"} <= set(functions())
    for name, value in documented().items():
        assert name == "Rule" or inspect.getdoc(value), name


def test_every_public_function_has_an_example_and_every_rule_its_formula():
    for name, function in functions().items():
        doc = inspect.getdoc(function) or ""
        assert ("r' = " in doc) if is_rule(function) else (">>>" in doc), name


def test_every_argument_of_a_public_function_is_annotated_and_documented():
    for name, function in functions().items():
        doc = inspect.getdoc(function) or ""
        for argument in inspect.signature(function).parameters.values():
            assert argument.annotation is not inspect.Parameter.empty, (name, argument)
            assert is_rule(function) or f"\n  {argument.name}: " in doc, name


def test_importing_the_core_imports_none_of_the_extras():
    code = f"import sys, optax_dtnh; print([m for m in {EXTRAS} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_core_depends_on_jax_and_optax_alone_and_not_on_the_broken_jax():
    core = [r for r in requires("optax-dtnh") or [] if "extra ==" not in r]
    assert sorted(r.split(">")[0].split("!")[0] for r in core) == ["jax", "optax"]
    assert any("!=0.10.2" in r for r in core)
    assert version("jax") != "0.10.2"
