"""The public names, the files and the pages say the same: nothing is left out, nothing grows."""

import ast
import inspect
import io
import re
import tokenize
import typing

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_dtnh
from optax_dtnh import regularizers
from tests.core.uses import USES
from tests.pages.pages import ROOT

# --- the public names

# Properties: searched by Hypothesis in these files.
PROPERTIES = ("tests/core/test_properties.py", "tests/core/test_value_properties.py")
# What no property belongs to, and why.
WITHOUT_PROPERTY = {
    "DTNHState": "a container; the contract suite checks its structure and dtypes",
    "L2SPState": "a container; the contract suite checks its structure and dtypes",
    "TransformPairState": "a container; the contract suite checks its structure and dtypes",
    "Rule": "a type",
    "regularizers": "a module; its functions are checked against float64 in test_regularizers",
}
WITHOUT_EXAMPLE = {
    **{name: "shown by the factory that makes it" for name in WITHOUT_PROPERTY if "State" in name},
    "Rule": "a type",
    "GradientPair": "shown by `dtnh` and `transform_pair`",
    **{name: "the formula stands in its place" for name in ("truncate", "orthogonal", "drop")},
    **{name: "the formula stands in its place" for name in ("cosine", "plain")},
    "regularizers": "a module; each of its functions has one",
}


def values():
    return {name: getattr(optax_dtnh, name) for name in optax_dtnh.__all__}


def used(path):
    """The names that a file of tests takes from the package and then uses."""
    names = [
        n.id for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.Name)
    ]
    return set(names)


@pytest.mark.parametrize("name", optax_dtnh.__all__)
def test_every_public_name_has_a_docstring_and_an_example_that_runs(name):
    doc = inspect.getdoc(values()[name])
    assert doc or name == "Rule"
    assert (">>> " in (doc or "")) != (name in WITHOUT_EXAMPLE), "or list it with a reason"


@pytest.mark.parametrize("name", optax_dtnh.__all__)
def test_every_public_name_has_a_property(name):
    searched = set.union(*map(used, PROPERTIES))
    assert (name in searched) != (name in WITHOUT_PROPERTY), "or list it with a reason"


def transformations():
    """The names of the functions that return a transformation."""
    found = {name: x for name, x in values().items() if inspect.isfunction(x)}
    returned = {name: typing.get_type_hints(x).get("return") for name, x in found.items()}
    return {n for n, x in returned.items() if x is optax.GradientTransformationExtraArgs}


def test_every_transformation_has_rows_in_the_contract_suite():
    assert transformations() == {"add_l2_sp", "dtnh", "scale_by_adam_dtnh", "transform_pair"}
    suite = (ROOT / "tests/core/test_optax_contract.py").read_text()
    assert suite.count("\n@every_use\n") >= 9
    for name in transformations():
        assert name in used("tests/core/uses.py")
        assert [row for row in USES if row.split(",")[0] == name], name


def test_every_rule_and_diagnostic_runs_under_jit():
    """Functions that are no transformation have a contract of their own, smaller."""
    g, r = jnp.array([1.0, 2.0]), jnp.array([-2.0, 0.5])
    rules = [values()[n] for n in ("truncate", "orthogonal", "drop", "cosine", "plain")]
    for rule in rules:
        compiled = jax.jit(lambda r, g, rule=rule: optax_dtnh.apply_rule(rule, r, g))
        assert jnp.allclose(compiled(r, g), optax_dtnh.apply_rule(rule, r, g))
    for function in (optax_dtnh.cosine_similarity, optax_dtnh.first_order_change):
        assert jnp.allclose(jax.jit(function)(g, r), function(g, r))


@pytest.mark.parametrize("name", regularizers.__all__)
def test_every_regularizer_has_an_example_a_section_and_tests(name):
    assert ">>> " in (inspect.getdoc(getattr(regularizers, name)) or "")
    assert f"| `{name}` |" in (ROOT / "docs/regularizers.md").read_text()
    assert name in used("tests/regularizers/test_regularizers.py")


# --- the size of files and functions, in lines of code: what is neither empty nor a comment nor
# part of a docstring. A function's are those of its body, functions inside it included.

FILE, FUNCTION = 250, 30
LONGER = {
    "init_and_combine": "the two functions of a transformation, which share what it is made from",
    "add_l2_sp": "the two functions of a transformation, with the checks of its one update",
    "verdicts": "a sentence for every idea that was tried, one below the other",
}


def docstring(node):
    first = node.body[0] if node.body else None
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return first if text and isinstance(first.value.value, str) else None


def lines_of_code(source):
    """The numbers of the lines that hold code."""
    kept = set()
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*skipped, tokenize.ENDMARKER):
            kept |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (d := docstring(node)):
            kept -= set(range(d.lineno, d.end_lineno + 1))
    return kept


def long_functions(source):
    lines, found = lines_of_code(source), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = [n for n in lines if node.body[0].lineno <= n <= node.end_lineno]
            found[node.name] = max(len(body), found.get(node.name, 0))
    return {name: n for name, n in found.items() if n > FUNCTION}


def sources():
    found = [p for folder in ("optax_dtnh", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    return [path.relative_to(ROOT).as_posix() for path in sorted(found)]


@pytest.mark.parametrize("path", sources())
def test_files_and_functions_stay_short(path):
    source = (ROOT / path).read_text()
    assert len(lines_of_code(source)) <= FILE
    assert set(long_functions(source)) <= set(LONGER), "shorten it, or list it with a reason"


def test_lines_are_counted_without_comments_and_docstrings():
    body = "\n".join(f"    x = {i}" for i in range(31))
    source = f'"""One.\n\nMore.\n"""\n\n# why\ndef f():\n    """Two.\n    """\n{body}\n'
    assert len(lines_of_code(source)) == 32
    assert long_functions(source) == {"f": 31}
    assert long_functions(source.replace("    x = 0\n", "")) == {}


# --- the imports


def imports():
    """From each part of the package to the parts that it imports, sub-packages as one part."""
    found = {}
    for path in (ROOT / "optax_dtnh").rglob("*.py"):
        part = part_of(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optax_dtnh"):
                bare = node.module == "optax_dtnh"
                targets = [f"optax_dtnh.{a.name}" for a in node.names] if bare else [node.module]
                found.setdefault(part, set()).update(map(part_of, targets))
    return {part: sorted(targets - {part}) for part, targets in sorted(found.items())}


def part_of(module):
    return module.split(".")[1]


def test_the_picture_of_the_imports_is_right():
    page = (ROOT / "docs/contributing.md").read_text()
    drawn = {
        part.strip(): sorted(targets.strip().split(", "))
        for part, targets in re.findall(r"^(\w+) +-> (.+)$", page, re.MULTILINE)
    }
    real = {part: targets for part, targets in imports().items() if targets}
    assert drawn == real


def test_imports_point_one_way():
    reached = imports()
    for _ in reached:
        reached = {
            part: sorted({*targets, *(t for via in targets for t in reached.get(via, []))})
            for part, targets in reached.items()
        }
    assert not [part for part, targets in reached.items() if part in targets]
    assert not {"_transform", "_anchor", "_metric", "models"} & set(reached["regularizers"])
    assert not {"_transform", "_anchor", "_metric"} & set(reached["models"])
    assert not [part for part, targets in reached.items() if "models" in targets]
