"""SAVE: every step can be gone back to. A base, and what was applied since (docs/snapshots.md has the format)."""
