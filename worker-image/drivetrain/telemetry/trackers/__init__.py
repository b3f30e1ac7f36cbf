"""Trackers of experiments: one a file, imported only when a job asks for it."""
