"""What supervisor and workers share: channels, memory, and clients' connections."""
