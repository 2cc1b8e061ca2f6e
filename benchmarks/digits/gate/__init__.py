"""The parts of `benchmarks.digits.gate`: candidates, folds, scores, choices, regret."""
