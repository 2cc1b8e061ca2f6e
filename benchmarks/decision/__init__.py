"""The parts of `benchmarks.should_i_transfer`: candidates, folds, scores, choices, regret."""
