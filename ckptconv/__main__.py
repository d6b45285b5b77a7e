"""`python -m ckptconv` is the command `ckptconv`."""

from ckptconv.cli import main

if __name__ == "__main__":
    main()
