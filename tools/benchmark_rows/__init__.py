"""The rows of the benchmark: what is measured, and the baselines."""
