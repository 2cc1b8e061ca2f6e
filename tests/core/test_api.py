"""The public surface: what is exported, documented and imported."""

import functools
import inspect
import subprocess
import sys
from importlib.metadata import requires, version

import optax_dtnh
from optax_dtnh import models, regularizers

# The core is jax and optax; these belong to the extras.
EXTRAS = ["flax", "orbax", "grain", "tensorflow_datasets", "safetensors", "huggingface_hub"]
EXTRAS += ["torch", "sklearn", "matplotlib"]


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


def test_all_of_the_models_is_what_their_package_exports():
    exported = {name for name, value in public(models).items() if not inspect.ismodule(value)}
    assert exported == set(models.__all__)


def parts_of_models():
    """The functions and the two networks; a block has no use of its own."""
    names = set(models.__all__) - {"Basic", "Bottleneck"}
    values = {name: getattr(models, name) for name in names}
    return {n: x for n, x in values.items() if not isinstance(x, functools.partial)}


def test_every_size_of_a_network_is_named_in_its_docstring():
    sizes = {n: x for n in models.__all__ if isinstance(x := getattr(models, n), functools.partial)}
    assert len(sizes) == 8
    for name, size in sizes.items():
        assert f"`{name}`" in (inspect.getdoc(size.func) or ""), name


def test_every_part_of_the_models_has_an_example_and_annotated_documented_arguments():
    assert len(parts_of_models()) == 7
    for name, value in parts_of_models().items():
        doc = inspect.getdoc(value) or ""
        assert ">>>" in doc, name
        of = value.__init__ if inspect.isclass(value) else value
        arguments = [a for a in inspect.signature(of).parameters.values() if a.name != "self"]
        assert arguments
        for argument in arguments:
            assert argument.annotation is not inspect.Parameter.empty, (name, argument)
            assert f"\n  {argument.name}: " in doc, (name, argument)


def test_importing_the_core_imports_none_of_the_extras():
    code = f"import sys, optax_dtnh; print([m for m in {EXTRAS} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_core_depends_on_jax_and_optax_alone_and_not_on_the_broken_jax():
    core = [r for r in requires("optax-dtnh") or [] if "extra ==" not in r]
    assert sorted(r.split(">")[0].split("!")[0] for r in core) == ["jax", "optax"]
    assert any("!=0.10.2" in r for r in core)
    assert version("jax") != "0.10.2"
