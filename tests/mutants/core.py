"""Mutants of the core and of the regularizers."""

from tests.mutants import Mutant

PROPERTIES = "tests/core/test_properties.py"
RULES = f"tests/core/test_rules.py {PROPERTIES}"
TRANSFORM = f"tests/core/test_transform.py tests/core/test_optax_contract.py {PROPERTIES}"
ANCHOR = "tests/core/test_anchor.py tests/core/test_optax_contract.py"
METRIC = "tests/core/test_metric.py tests/core/test_optax_contract.py"
SUMS = f"tests/core/test_transform.py {RULES} tests/core/test_sharding.py"
ERRORS = "tests/core/test_errors.py"
GRANULARITY = "tests/core/test_granularity.py"
GRADIENTS = "tests/core/test_gradients.py"
PARTS = "tests/core/test_micro_batches.py"
REGULARIZERS = "tests/regularizers/test_regularizers.py"

MUTANTS = [
    # the rules
    Mutant("optax_dtnh/_rules.py", "jnp.minimum(dot, 0.0)", "jnp.maximum(dot, 0.0)", RULES),
    Mutant("optax_dtnh/_rules.py", "return 1.0, dot\n", "return 1.0, 0.5 * dot\n", RULES),
    Mutant(
        "optax_dtnh/_rules.py",
        "jnp.where(dot < 0, 0.0, 1.0)",
        "jnp.where(dot > 0, 0.0, 1.0)",
        RULES,
    ),
    Mutant(
        "optax_dtnh/_rules.py", "over_norms(jnp.maximum(dot, 0.0)", "over_norms(jnp.abs(dot)", RULES
    ),
    Mutant("optax_dtnh/_rules.py", "return 1.0, 0.0", "return 0.5, 0.0", RULES),
    Mutant("optax_dtnh/_rules.py", "else keep * r - c * m", "else keep * r + c * m", RULES),
    Mutant("optax_dtnh/_rules.py", "return keep * r if", "return r if", RULES),
    Mutant(
        "optax_dtnh/_combine.py", "decide(rule, (r, m), r, m,", "decide(rule, (m, r), r, m,", RULES
    ),
    # one decision, and the sum
    Mutant(
        "optax_dtnh/_combine.py",
        "rule(jnp.where(nonzero, dot, 0.0), ref_sq,",
        "rule(jnp.where(nonzero, dot, 0.0), 1.0,",
        RULES,
    ),
    Mutant(
        "optax_dtnh/_combine.py",
        "keep = jnp.asarray(keep, s.dtype) * s / s",
        "keep = s * 0 + 1",
        RULES,
    ),
    Mutant("optax_dtnh/_combine.py", "jnp.where(nonzero, ref_sq, 1.0)", "ref_sq + 1e-8", RULES),
    Mutant("optax_dtnh/_combine.py", "and along == 0", "and along != 0", RULES),
    Mutant("optax_dtnh/_combine.py", "nonzero = ref_sq != 0", "nonzero = ref_sq > 1e-12", RULES),
    Mutant(
        "optax_dtnh/_combine.py",
        "return keep, None, dot < 0",
        "return keep, None, dot > 0",
        TRANSFORM,
    ),
    Mutant(
        "optax_dtnh/_combine.py",
        "conflicts / max(decisions, 1)",
        "conflicts",
        TRANSFORM,
    ),
    Mutant(
        "optax_dtnh/_combine.py",
        "formula(keep, c, *given)",
        "formula(keep, c, u, *others)",
        TRANSFORM,
    ),
    Mutant("optax_dtnh/_combine.py", ".astype(jnp.result_type(u))", "", TRANSFORM),
    Mutant("optax_dtnh/_combine.py", "jax.lax.stop_gradient(", "jnp.asarray(", TRANSFORM),
    # sums
    Mutant("optax_dtnh/_sums.py", "total + (total - total)", "total", SUMS),
    Mutant("optax_dtnh/_sums.py", "a, b = widen_all(a, b)", "pass", SUMS),
    Mutant("optax_dtnh/_sums.py", "== jnp.float64 for", "== jnp.int8 for", SUMS),
    Mutant("optax_dtnh/_sums.py", "jax.lax.psum(s, axes) if axes else s", "s", SUMS),
    Mutant(
        "optax_dtnh/_sums.py",
        "dx / y - result * (dy / y)",
        "dx / y - result * y * dy / (y * y)",
        SUMS,
    ),
    Mutant(
        "optax_dtnh/_sums.py",
        "terms = [a + b for a, b in pairs] + terms[len(terms) - len(terms) % 2 :]",
        "terms = [a + b for a, b in pairs]",
        SUMS,
    ),
    Mutant(
        "optax_dtnh/_sums.py",
        "while len(terms) > 1:",
        "while len(terms) > 1:\n        terms = [sum(terms[1:], terms[0])]\n        break",
        SUMS,
    ),
    Mutant("optax_dtnh/_sums.py", "(ref_sq != 0) & (reg_sq != 0)", "(ref_sq != 0)", SUMS),
    # which leaves
    Mutant("optax_dtnh/_select.py", "leaf if keep else", "leaf if not keep else", TRANSFORM),
    Mutant(
        "optax_dtnh/_labels.py",
        "itertools.compress(leaves, jax.tree.leaves(in_mask))",
        "leaves",
        TRANSFORM,
    ),
    Mutant("optax_dtnh/_labels.py", "shared[label].append(i)", "shared[0].append(i)", TRANSFORM),
    Mutant("optax_dtnh/_labels.py", "range(len(leaves))", "[0] * len(leaves)", TRANSFORM),
    Mutant("optax_dtnh/_labels.py", "else None), tree)", "else (axis,)), tree)", GRANULARITY),
    Mutant("optax_dtnh/_labels.py", "elements=len(along) == ndim", "elements=False", GRANULARITY),
    Mutant("optax_dtnh/_combine.py", "jnp.sign(m[0]) < 0", "jnp.sign(m[0]) <= 0", GRANULARITY),
    Mutant("optax_dtnh/_combine.py", "& (rule is not plain)", "", GRANULARITY),
    Mutant("optax_dtnh/_sums.py", "if axis not in along", "if axis in along", GRANULARITY),
    Mutant("optax_dtnh/_select.py", "and all(leaves)", "", TRANSFORM),
    Mutant("optax_dtnh/_select.py", "if not any(leaves):", "if False:", ERRORS),
    Mutant("optax_dtnh/_select.py", "check_floating(name, part, LEAVE_OUT)", "pass", ERRORS),
    # dtnh
    Mutant(
        "optax_dtnh/_transform.py",
        "u + weighted(lam, direction(keep, c, r, m))",
        "u + direction(keep, c, r, m)",
        TRANSFORM,
    ),
    Mutant(
        "optax_dtnh/_transform.py", "safe_increment(state.step)", "safe_increment(0)", TRANSFORM
    ),
    Mutant(
        "optax_dtnh/_transform.py",
        "weight(state.step) if callable(weight)",
        "weight(state.step + 1) if callable(weight)",
        TRANSFORM,
    ),
    Mutant(
        "optax_dtnh/_transform.py",
        "reference.update(g, state.reference",
        "reference.update(u, state.reference",
        TRANSFORM,
    ),
    Mutant(
        "optax_dtnh/_transform.py",
        "inner.update(g, state.inner, params, **extra_args)",
        "inner.update(g, state.inner, params)",
        TRANSFORM,
    ),
    Mutant("optax_dtnh/_transform.py", "_replace(conflict=conflict)", "_replace()", TRANSFORM),
    Mutant("optax_dtnh/_transform.py", "return rule or truncate", "return truncate", TRANSFORM),
    # the anchor
    Mutant("optax_dtnh/_anchor.py", "-(w_s - w)", "w_s - w", ANCHOR),
    Mutant(
        "optax_dtnh/_anchor.py", "jnp.subtract(*widen_all(*pair))", "jnp.subtract(*pair)", ANCHOR
    ),
    Mutant("optax_dtnh/_anchor.py", "copy=True", "copy=False", ANCHOR),
    Mutant("optax_dtnh/_anchor.py", "L2SPState(w_s, after", "L2SPState(w, after", ANCHOR),
    Mutant("optax_dtnh/_anchor.py", "jnp.array(x, dtype, copy", "jnp.array(x, copy", ANCHOR),
    # Adam's metric
    Mutant("optax_dtnh/_metric.py", "u + p * weighted", "u + weighted", METRIC),
    Mutant("optax_dtnh/_metric.py", "for tree in (r, m))", "for tree in (r, r))", METRIC),
    Mutant("optax_dtnh/_metric.py", "/ max(size(nu), 1.0) * correct", "* correct", METRIC),
    Mutant(
        "optax_dtnh/_metric.py", "/ max(size(nu), 1.0) * correct", "/ max(size(nu), 1.0)", METRIC
    ),
    Mutant("optax_dtnh/_metric.py", "jnp.maximum(jnp.sqrt(nu * c", "(jnp.sqrt(nu * c", METRIC),
    Mutant("optax_dtnh/_metric.py", "jnp.where(mean == 0, 0.0, 2.0)", "2.0", METRIC),
    Mutant("optax_dtnh/_metric.py", "nesterov=nesterov", "nesterov=False", METRIC),
    # the pair
    Mutant(
        "optax_dtnh/_pair.py",
        "GradientPair(updates, reg_grads)",
        "GradientPair(reg_grads, updates)",
        TRANSFORM,
    ),
    Mutant("optax_dtnh/_pair.py", "len(updates) == 2:", "len(updates) >= 2:", ERRORS),
    Mutant("optax_dtnh/_pair.py", "MASK_BOTH if masked", "MASK_BOTH if not masked", ERRORS),
    Mutant(
        "optax_dtnh/_pair.py", "reg.update(r, state.reg,", "loss.update(r, state.reg,", TRANSFORM
    ),
    Mutant("optax_dtnh/_pair.py", "members is None or like_params", "members is None", ERRORS),
    # checks
    Mutant(
        "optax_dtnh/_checks.py",
        "np.isfinite(value) and value >= 0",
        "value >= 0 or value != value",
        ERRORS,
    ),
    Mutant("optax_dtnh/_checks.py", "0 < value < np.inf", "0 <= value < np.inf", ERRORS),
    Mutant("optax_dtnh/_checks.py", "real and not value.ndim", "real", ERRORS),
    Mutant("optax_dtnh/_checks.py", "if jnp.shape(leaf) != jnp.shape(like):", "if False:", ERRORS),
    Mutant("optax_dtnh/_checks.py", "if structure != other_structure:", "if False:", ERRORS),
    # two gradients
    Mutant("optax_dtnh/_gradients.py", "tangents(t)[i]", "tangents(t)[0]", GRADIENTS),
    Mutant("optax_dtnh/_micro_batches.py", "(t / count)", "t", PARTS),
    Mutant("optax_dtnh/_micro_batches.py", "t + widen(x), total", "x, total", PARTS),
    Mutant("optax_dtnh/_micro_batches.py", "jnp.zeros_like(widen(w))", "jnp.zeros_like(w)", PARTS),
    Mutant(
        "optax_dtnh/_diagnostics.py",
        "inner_product(updates, loss_grads)",
        "abs(inner_product(updates, loss_grads))",
        "tests/core/test_first_order.py",
    ),
    # the regularizers
    Mutant("optax_dtnh/regularizers/_distances.py", "0.5 * total", "total", REGULARIZERS),
    Mutant(
        "optax_dtnh/regularizers/_distances.py",
        "jnp.subtract(*widen_all(x, y))",
        "widen_all(x - y)[0]",
        REGULARIZERS,
    ),
    Mutant(
        "optax_dtnh/regularizers/_distances.py", "jax.lax.stop_gradient(f_s)", "f_s", REGULARIZERS
    ),
    Mutant(
        "optax_dtnh/regularizers/_distillation.py", "t**2 * jnp.mean", "t * jnp.mean", REGULARIZERS
    ),
    Mutant(
        "optax_dtnh/regularizers/_distillation.py",
        "jnp.where(p_s > 0, log_p_s - log_p, 0.0)",
        "log_p_s - log_p",
        REGULARIZERS,
    ),
    Mutant("optax_dtnh/regularizers/_attention.py", "weights.size * widen", "widen", REGULARIZERS),
    Mutant("optax_dtnh/regularizers/_attention.py", "losses - losses[-1]", "losses", REGULARIZERS),
    Mutant("optax_dtnh/regularizers/_attention.py", "spread) / 5)", "spread))", REGULARIZERS),
    Mutant("optax_dtnh/regularizers/_spectral.py", "v[-k:]", "v[:k]", REGULARIZERS),
    Mutant(
        "optax_dtnh/regularizers/_spectral.py",
        "tall = widen(f if",
        "tall = widen(f.T if",
        REGULARIZERS,
    ),
]
