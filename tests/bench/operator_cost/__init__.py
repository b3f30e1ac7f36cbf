"""How fast is the operator, and what does it cost, beside a plain loop that creates the same pods?

Not called `operator`: the folder of a script that is run by its path comes before the standard library."""
