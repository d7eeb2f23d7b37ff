"""The command line: it parses words, calls `geostore.api`, and prints. Nothing is decided here."""
