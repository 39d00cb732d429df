"""`python -m voxpanel`: the command `voxpanel`."""

from voxpanel.cli import main

if __name__ == "__main__":
    main()
