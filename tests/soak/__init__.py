"""The long test (`make soak`): deploys, restarts and kills for an hour, and what they leave behind.

A service on a real systemd, under a mixture of load from outside, is reloaded, restarted and
killed at random intervals, in a phase each, because each promises something else. Before and
after every phase the service's descriptors, threads, processes and memory are counted.
"""
