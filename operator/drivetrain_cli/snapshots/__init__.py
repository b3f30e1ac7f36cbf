"""`drivetrain snapshots`: what a job has in storage, seen from where its storage is."""
