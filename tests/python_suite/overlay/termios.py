"""What the module `tty` needs to be imported: some test modules import it for a few tests on terminals."""

TCSAFLUSH = 2
