"""The parts of `benchmarks.variants`: forms, cases, training, resumable runs and what they say."""
