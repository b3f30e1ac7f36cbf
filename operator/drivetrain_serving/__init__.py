"""How our ports are served: nothing is spent on a caller before it says who it is, and everything is bounded after.

Operator and coordinator listen through this. It knows of connections, bodies and rates, not of jobs.
"""
