"""``python -m ragweave``, the same as the command ``ragweave``."""

from ragweave.cli import main

if __name__ == "__main__":
    main()
