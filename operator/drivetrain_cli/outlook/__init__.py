"""`drivetrain plan`: when would a job run, and what would that emit and cost? Before anybody submits it."""
