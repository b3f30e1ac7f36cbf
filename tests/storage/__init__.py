"""Snapshots in the stores that are claimed, each by a real server: `make test-storage`."""
