"""How fast is the operator, and what does it cost, beside a plain loop that creates the same pods?"""
