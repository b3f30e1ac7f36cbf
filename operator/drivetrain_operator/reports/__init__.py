"""What coordinators say about their jobs, what they are told, and how each side knows the other."""
