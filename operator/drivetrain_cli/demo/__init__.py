"""`drivetrain demo`: three workers train, one is killed half-way, and what happened is shown and checked.

`steps` reads what the training processes write about themselves, `scene` runs the job, `screen` shows it while it
runs, `outcome` judges it. Everything is measured from outside the product: from files of the user's script, from
/proc, and from the API server.
"""
