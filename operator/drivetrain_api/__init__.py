"""The contract that the operator, the coordinator, the launcher and the CLI share.

Pure data: models, names, numbers. It does no I/O, reads no clock, and imports pydantic only, because both images
carry it and the launcher, which is process 1 of every worker pod, starts with it.
"""
