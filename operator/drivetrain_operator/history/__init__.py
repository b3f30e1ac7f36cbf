"""Keeps of each job how its numbers went and what happened to it, where it can be read when the job is over."""
