"""``python -m keepfit``: the `keepfit` command, where its script is not on the path."""

from keepfit.cli import main

if __name__ == "__main__":
    main()
