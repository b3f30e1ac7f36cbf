"""SYNC: how ranks exchange tensors, such that every wait can be abandoned and nothing abandoned does harm."""
