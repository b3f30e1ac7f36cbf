"""`make bench-energy`: what planning saves, beside the optimum and beside others."""
