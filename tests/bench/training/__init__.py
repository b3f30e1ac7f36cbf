"""How fast, small and exact is each mode of training, beside plain torch? `make bench-training`, `make bench-scaling`.

To add a mode: a line in modes.py, and a function in counterparts.py if torch can do the same. To add a collective: a
line in methods.py.
"""
