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
            ("return 1.0, dot\n", "return 1.0, 0.5 * dot\n"),
            ("jnp.where(dot < 0, 0.0, 1.0)", "jnp.where(dot > 0, 0.0, 1.0)"),
            ("over_norms(jnp.maximum(dot, 0.0)", "over_norms(jnp.abs(dot)"),
            ("return 1.0, 0.0", "return 0.5, 0.0"),
            ("else keep * r - c * m", "else keep * r + c * m"),
            ("return keep * r if", "return r if"),
            ("return rule or truncate", "return truncate"),
            ("+ 32 * jnp", "+ 0 * jnp"),
        ],
        ("_rules.py", TRANSFORM): [("u + weighted(weight, direction", "u + (direction")],
        ("_combine.py", RULES): [
            ("decide(rule, (r, m), r, m,", "decide(rule, (m, r), r, m,"),
            ("where(nonzero, dot, 0.0), ref_sq,", "where(nonzero, dot, 0.0), 1.0,"),
            ("keep = jnp.asarray(keep, s.dtype) * s / s", "keep = s * 0 + 1"),
            ("jnp.where(nonzero, ref_sq, 1.0)", "ref_sq + 1e-8"),
            ("and along == 0", "and along != 0"),
            ("nonzero = ref_sq != 0", "nonzero = ref_sq > 1e-12"),
        ],
        ("_combine.py", TRANSFORM): [
            ("return keep, None, dot < 0", "return keep, None, dot > 0"),
            ("conflicts / max(decisions, 1)", "conflicts"),
            ("formula(keep, c, *given)", "formula(keep, c, u, *others)"),
            (".astype(jnp.result_type(u))", ""),
            ("jax.lax.stop_gradient(", "jnp.asarray("),
        ],
        ("_sums.py", SUMS): [
            ("total + (total - total)", "total"),
            ("a, b = widen_all(a, b)", "pass"),
            ("== jnp.float64 for", "== jnp.int8 for"),
            ("jax.lax.psum(s, axes) if axes else s", "s"),
            ("dx / y - result * (dy / y)", "dx / y - result * y * dy / (y * y)"),
            (" + terms[len(terms) - len(terms) % 2 :]", ""),
            ("while len(terms) > 1:", "terms = [sum(terms[1:], terms[0])]\n    while False:"),
            ("(ref_sq != 0) & (reg_sq != 0)", "(ref_sq != 0)"),
        ],
        ("_select.py", TRANSFORM): [
            ("leaf if keep else", "leaf if not keep else"),
            ("and all(leaves)", ""),
        ],
        ("_labels.py", TRANSFORM): [
            ("itertools.compress(leaves, jax.tree.leaves(in_mask))", "leaves"),
            ("shared[label].append(i)", "shared[0].append(i)"),
            ("unflatten(range(structure.num_leaves))", "unflatten([0] * structure.num_leaves)"),
        ],
        ("_labels.py", "granularity"): [
            ("else None), tree)", "else (axis,)), tree)"),
            ("label.axes is None or bool(along) and alone", "False"),
        ],
        ("_combine.py", "granularity"): [
            ("jnp.sign(m) < 0", "jnp.sign(m) <= 0"),
            (" & (rule is not plain)", ""),
            ("jnp.where(opposed & (rule is not plain), zero, one)", "(~opposed).astype(r.dtype)"),
        ],
        ("_sums.py", "granularity"): [("if axis not in along", "if axis in along")],
        ("_select.py", "errors"): [
            ("if not any(leaves):", "if False:"),
            ("check_floating(name, part, LEAVE_OUT)", "pass"),
        ],
        ("_labels.py", "errors"): [(" and not any(parts_of(leaf))", "")],
        ("_transform.py", TRANSFORM): [
            ("safe_increment(state.step)", "safe_increment(0)"),
            ("weight(state.step) if", "weight(state.step + 1) if"),
            ("reference.update(g, state.reference", "reference.update(u, state.reference"),
            ("state.inner, params, **extra_args", "state.inner, params"),
            ("return updates, state._replace(conflict=conflict)", "return updates, state"),
        ],
        ("_anchor.py", "anchor optax_contract"): [
            ("r = -pull(", "r = pull("),
            ("*widen_all(*x)), w", "*x), w"),
            ("return jnp.array(x, dtype, copy=True)", "return jnp.asarray(x, dtype)"),
            ("0.0 if decay", "1.0 if decay"),
            ("if not jax.tree.leaves(part):", "if False:"),
        ],
        ("_anchor.py", "sharding"): [
            ('getattr(w, "sharding", None)', "None"),
            ("return jnp.where(w == w, x, x)", "return x"),
        ],
        ("_transform.py", "metric optax_contract"): [
            ("u + p * weighted", "u + weighted"),
            ("for tree in (r, m))", "for tree in (r, r))"),
            ("/ max(size(nu), 1.0) * correct", "* correct"),
            ("/ max(size(nu), 1.0) * correct", "/ max(size(nu), 1.0)"),
            ("jnp.maximum(jnp.sqrt(nu * c", "(jnp.sqrt(nu * c"),
            ("jnp.where(mean == 0, 0.0, 2.0)", "2.0"),
            ("nesterov=nesterov", "nesterov=False"),
        ],
        ("_pair.py", TRANSFORM): [
            ("GradientPair(updates, reg_grads)", "GradientPair(reg_grads, updates)"),
            ("reg.update(r, state.reg,", "loss.update(r, state.reg,"),
        ],
        ("_pair.py", "errors"): [
            ("len(updates) == 2:", "len(updates) >= 2:"),
            ("MASK_BOTH if masked", "MASK_BOTH if not masked"),
            ("members is None or like_params", "members is None"),
        ],
        ("_checks.py", "errors"): [
            ("0 <= x < np.inf", "0 <= x"),
            ("0 < x < np.inf", "0 <= x < np.inf"),
            ("real and not value.ndim", "real"),
            ("if jnp.shape(leaf) != jnp.shape(like):", "if False:"),
            ("if structure != other_structure:", "if False:"),
        ],
        ("_probe.py", "check"): [
            ("anchor=1.0)", "anchor=0.0)"),
            ("for agree in (0.0, 1.0)", "for agree in (0.0,)"),
            ("(x + move)", "x"),
        ],
        ("_report.py", "report"): [("if members & indices", "")],
        ("_masks.py", "masks"): [("fnmatchcase, window", "str.startswith, window")],
        ("_interpolate.py", "interpolate"): [("t < 0.5, a, x", "t < 2.0, a, x")],
        ("_gradients.py", "gradients"): [("tangents(t)[i]", "tangents(t)[0]")],
        ("_gradients.py", "micro_batches"): [
            ("(t / count)", "t"),
            ("t + widen(x), total", "x, total"),
            ("jnp.zeros_like(widen(w))", "jnp.zeros_like(w)"),
        ],
        ("_report.py", "first_order"): [
            ("inner_product(updates, loss_grads)", "abs(inner_product(updates, loss_grads))")
        ],
    },
)
MUTANTS += listed(
    "optax_dtnh/regularizers",
    "tests/regularizers",
    {
        ("_distances.py", "regularizers"): [
            ("0.5 * sum_of", "sum_of"),
            ("jnp.subtract(*widen_all(x, y))", "widen_all(x - y)[0]"),
            ("jax.lax.stop_gradient(f_s)", "f_s"),
        ],
        ("_kl.py", "regularizers"): [
            ("t**2 * jnp.sum", "t * jnp.sum"),
            ("jnp.where(p > 0, log_p - log_q, 0.0)", "(log_p - log_q)"),
        ],
        ("_kl.py", "kl"): [
            ("x, 0.0) for x in (z, z_s))", "x, x) for x in (z, z_s))"),
            ("jnp.maximum(jnp.sum(keep, dtype=z.dtype), 1.0)", "keep.size"),
            ("-jnp.inf, z)", "0.0, z)"),
        ],
        ("_chunks.py", "kl"): [
            ("-len(x) % count", "0"),
            ("jax.tree.map(widen, params)", "params"),
            ("x = _kept(x, keep)", "x = jnp.asarray(x)"),
            ("@jax.checkpoint", "@jax.jit"),
            (
                "x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)",
                "x.reshape(count, -1, *x.shape[1:])",
            ),
        ],
        ("_attention.py", "regularizers"): [
            ("weights.size * widen", "widen"),
            ("losses - losses[-1]", "losses"),
            ("spread) / 5)", "spread))"),
        ],
        ("_fisher.py", "regularizers"): [
            ("fold_in(key, i)", "fold_in(key, 0)"),
            ("jnp.arange(count, count + size)", "jnp.arange(size)"),
        ],
        ("_spectral.py", "regularizers"): [
            ("v[-k:]", "v[:k]"),
            ("tall = widen(f if", "tall = widen(f.T if"),
        ],
    },
)
