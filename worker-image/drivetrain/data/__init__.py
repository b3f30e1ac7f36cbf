"""READ: which sample goes to which rank at which step, and how it gets there."""
