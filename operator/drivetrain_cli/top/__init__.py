"""All jobs, live in a terminal."""
