"""The parts of `benchmarks.digits.variants`: forms, cases, training, resumable runs and what they say."""
