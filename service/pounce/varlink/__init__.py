"""Both ends of the control socket (https://varlink.org)."""
