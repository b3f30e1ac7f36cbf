"""How much electricity does this pod draw? Read by the launcher, in a thread of its own; nothing here needs a right or
a package, and nothing here ever stops training."""
