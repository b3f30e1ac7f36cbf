"""Real servers that tests share: import as `harness.<module>`."""
