"""Snapshots by hand: what a person asks of a storage (docs/snapshots.md, "By hand")."""
