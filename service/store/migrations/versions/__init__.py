"""One module a migration, each able to run while the release before still could."""
