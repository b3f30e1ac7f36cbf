"""What a rank tells the outside of its progress."""
