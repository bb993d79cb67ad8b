"""Attacks on a running service, while well-behaved clients go on using it.

`python -m tests.attack` carries them out in full and writes the figures; the tests here do the
same on a smaller scale. What counts is that every well-behaved request is answered, that memory
stays within the bound each attack states, and that nothing is left behind.
"""
