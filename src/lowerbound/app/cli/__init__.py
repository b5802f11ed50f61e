"""The command line: one file a command, each the library's function with typed arguments."""
