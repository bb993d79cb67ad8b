"""Requests that threads answer: the loop collects and sends, a thread runs blocking code."""
