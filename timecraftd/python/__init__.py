"""Python programs as guests: the interpreter, its packages, and the command line that it gets."""
