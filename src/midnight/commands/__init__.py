"""Groups of the command line that have a file of their own; `midnight.cli` holds the rest."""
