"""``python -m pounce``: the command under a chosen interpreter."""

from pounce.cli import main

if __name__ == "__main__":
    main()
