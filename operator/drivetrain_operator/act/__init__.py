"""Acting on what was decided: the work queue, the reconciler and the executor."""
