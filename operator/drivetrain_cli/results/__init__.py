"""`drivetrain get`: checkpoints and results of a job, brought from where its pods have left them."""
