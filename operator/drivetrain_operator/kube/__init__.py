"""Talking to the API server: requests, watches, the leader Lease and Events, with plain dicts and typed errors."""
