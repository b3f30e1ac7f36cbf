"""PURE: what a job's child objects look like, as dicts. No I/O, no clock, no log."""
