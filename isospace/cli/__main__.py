"""Run the command as `python -m isospace.cli`."""

from isospace.cli.main import main

if __name__ == "__main__":
    main()
