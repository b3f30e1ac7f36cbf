"""The shell around the planning of energy: settings, feeds, and what they come to for each job."""
