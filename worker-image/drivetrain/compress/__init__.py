"""SYNC with fewer bytes: how a gradient is written down for the wire, and what is done about what that leaves out."""
