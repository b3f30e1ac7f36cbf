"""PURE: one question a file, one function each. `plan.py` calls them in order."""
