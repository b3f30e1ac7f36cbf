"""Pipelines: ranks compute some of the blocks each."""
