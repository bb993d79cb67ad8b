"""The options of a service: each is declared once, and everything else is derived from that."""
