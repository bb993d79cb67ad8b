"""The one room that knows all others: it puts a service together."""
