"""The command line: one file per verb, which parses and calls one function."""
