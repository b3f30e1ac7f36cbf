"""The operator: watch → plan → act. It decides which pods should exist and writes `status`; it is in no data path."""
