"""What was drawn, emitted and paid, and what would it have been?"""
