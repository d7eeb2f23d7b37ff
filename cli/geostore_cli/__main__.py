"""`python -m geostore_cli`: the same as the `geostore` script."""

from geostore_cli.main import main

if __name__ == "__main__":
    main()
