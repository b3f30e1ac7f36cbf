"""What every step costs that can be gone back to, and how fast that is."""
