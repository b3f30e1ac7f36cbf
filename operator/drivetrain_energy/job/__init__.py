"""One job: what is asked of its plan, how is that found, and does it still hold?"""
