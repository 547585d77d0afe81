"""`python -m timecraftd.cli` is `timecraft`."""

import sys

from timecraftd.cli import main

sys.exit(main())
