"""Commands from files to files: they read input, call the library, show progress and write results."""
