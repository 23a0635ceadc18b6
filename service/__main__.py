"""The entry point of the command."""

from service.cli import main

if __name__ == "__main__":
    main()
