"""What is served: how it is found, what it is, and what it may do to its process."""
