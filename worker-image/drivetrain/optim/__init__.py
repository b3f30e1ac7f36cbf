"""Optimizers that torch has not, and what `training.optimizer` and `training.learningRate` mean."""
