"""STEP: one module a way of spreading a step over ranks."""
