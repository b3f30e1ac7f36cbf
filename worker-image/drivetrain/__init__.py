"""Elastic, loss-free distributed PyTorch training. Importing this never imports torch by itself."""
