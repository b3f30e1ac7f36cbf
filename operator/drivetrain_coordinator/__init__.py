"""The coordinator: one small process per job that owns who is a member of its training world."""
