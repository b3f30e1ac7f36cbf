"""Tensor parallelism: ranks compute a part each of every layer."""
