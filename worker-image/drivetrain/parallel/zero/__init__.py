"""ZeRO: ranks keep a part each of what all replicas have alike."""
