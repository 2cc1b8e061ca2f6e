"""Mutants of the core and of the regularizers."""

from tests.mutants import listed

RULES = "rules properties"
TRANSFORM = "transform optax_contract properties"
SUMS = "transform rules properties sharding"

MUTANTS = listed(
    "optax_dtnh",
    "tests/core",
    {
        ("_rules.py", RULES): [
            ("jnp.minimum(dot, 0.0)", "jnp.maximum(dot, 0.0)"),
            ("jnp.where(dot < 0, 0.0, 1.0)", "jnp.where(dot > 0, 0.0, 1.0)"),
            ("over_norms(jnp.maximum(dot, 0.0)", "over_norms(jnp.abs(dot)"),
            ("+ 32 * jnp", "+ 0 * jnp"),
        ],
        ("_rules.py", TRANSFORM): [("u + weighted(weight, direction", "u + (direction")],
        ("_combine.py", RULES): [("nonzero = ref_sq != 0", "nonzero = ref_sq > 1e-12")],
        ("_combine.py", TRANSFORM): [
            ("return keep, None, dot < 0", "return keep, None, dot > 0"),
            ("conflicts / max(decisions, 1)", "conflicts"),
            (".astype(jnp.result_type(u))", ""),
            ("jax.lax.stop_gradient(", "jnp.asarray("),
        ],
        ("_sums.py", SUMS): [
            ("total + (total - total)", "total"),
            ("a, b = widen_all(a, b)", "pass"),
            ("jax.lax.psum(s, axes) if axes else s", "s"),
        ],
        ("_select.py", TRANSFORM): [("leaf if keep else", "leaf if not keep else")],
        ("_labels.py", TRANSFORM): [
            ("itertools.compress(leaves, jax.tree.leaves(in_mask))", "leaves"),
            ("shared[label].append(i)", "shared[0].append(i)"),
        ],
        ("_labels.py", "granularity"): [("else None), tree)", "else (axis,)), tree)")],
        ("_combine.py", "granularity"): [(" & (rule is not plain)", "")],
        ("_sums.py", "granularity"): [("if axis not in along", "if axis in along")],
        ("_select.py", "errors"): [("check_floating(name, part, LEAVE_OUT)", "pass")],
        ("_labels.py", "errors"): [(" and not any(parts_of(leaf))", "")],
        ("_transform.py", TRANSFORM): [
            ("safe_increment(state.step)", "safe_increment(0)"),
            ("return updates, state._replace(conflict=conflict)", "return updates, state"),
        ],
        ("_anchor.py", "anchor optax_contract"): [
            ("r = -pull(", "r = pull("),
            ("return jnp.array(x, dtype, copy=True)", "return jnp.asarray(x, dtype)"),
        ],
        ("_anchor.py", "sharding"): [
            ('getattr(w, "sharding", None)', "None"),
            ("return jnp.where(w == w, x, x)", "return x"),
        ],
        ("_transform.py", "metric optax_contract"): [
            ("u + p * weighted", "u + weighted"),
            ("/ max(size(nu), 1.0) * correct", "/ max(size(nu), 1.0)"),
            ("jnp.maximum(jnp.sqrt(nu * c", "(jnp.sqrt(nu * c"),
            ("jnp.where(mean == 0, 0.0, 2.0)", "2.0"),
        ],
        ("_pair.py", TRANSFORM): [
            ("GradientPair(updates, reg_grads)", "GradientPair(reg_grads, updates)"),
            ("reg.update(r, state.reg,", "loss.update(r, state.reg,"),
        ],
        ("_pair.py", "errors"): [("MASK_BOTH if masked", "MASK_BOTH if not masked")],
        ("_checks.py", "errors"): [
            ("0 <= x < np.inf", "0 <= x"),
            ("if jnp.shape(leaf) != jnp.shape(like):", "if False:"),
        ],
        ("_probe.py", "check"): [("anchor=1.0)", "anchor=0.0)"), ("(x + move)", "x")],
        ("_report.py", "report"): [("if members & indices", "")],
        ("_masks.py", "masks"): [("fnmatchcase, window", "str.startswith, window")],
        ("_interpolate.py", "interpolate"): [("t < 0.5, a, x", "t < 2.0, a, x")],
        ("_gradients.py", "gradients"): [("tangents(t)[i]", "tangents(t)[0]")],
        ("_gradients.py", "micro_batches"): [("(t / count)", "t")],
        ("_report.py", "first_order"): [
            ("inner_product(updates, loss_grads)", "abs(inner_product(updates, loss_grads))")
        ],
    },
)
MUTANTS += listed(
    "optax_dtnh/regularizers",
    "tests/regularizers",
    {
        ("_distances.py", "regularizers"): [("jax.lax.stop_gradient(f_s)", "f_s")],
        ("_kl.py", "regularizers"): [("t**2 * jnp.sum", "t * jnp.sum")],
        ("_kl.py", "kl"): [
            ("x, 0.0) for x in (z, z_s))", "x, x) for x in (z, z_s))"),
            ("jnp.maximum(jnp.sum(keep, dtype=z.dtype), 1.0)", "keep.size"),
        ],
        ("_chunks.py", "kl"): [("x = _kept(x, keep)", "x = jnp.asarray(x)")],
        ("_attention.py", "regularizers"): [("spread) / 5)", "spread))")],
        ("_fisher.py", "regularizers"): [("fold_in(key, i)", "fold_in(key, 0)")],
        ("_spectral.py", "regularizers"): [("v[-k:]", "v[:k]")],
    },
)
