"""Benchmarks: pounce beside its peers, with ratios as the result; see __main__."""
