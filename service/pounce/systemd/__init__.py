"""The only place that knows systemd: sockets in, notifications and journal entries out.

Two packages of others do a part of it, each where it is safe. sdnotify carries the notifications.
systemd-python takes the sockets over at the start, and reads the journal for `pounce log`, in a
process of its own. It does not write the journal, nor does `systemd.daemon.notify` speak to
systemd: on a full queue both wait, with the global lock held, so that neither the supervisor nor a
worker would do anything else. Importing it switches the lock of a free-threaded interpreter on.
"""
