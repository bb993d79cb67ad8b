"""pounce behind real proxies: an nginx and an HAProxy of this machine's Debian packages."""
