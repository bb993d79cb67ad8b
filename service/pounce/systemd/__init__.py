"""The only place that knows systemd: sockets in, notifications and journal entries out.

Pure Python on purpose: importing systemd-python switches the GIL on in a free-threaded
interpreter, and building it needs a C compiler in every virtual environment.
"""
