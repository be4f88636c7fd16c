"""Scripts: flags, wiring, printing. Each is run as `python -m launch.NAME`."""

import sys

from sparse_gpt import interruption

# One of them is being started: a signal that comes while it imports ends it as a later one does.
if sys.argv[:1] == ["-m"]:
    interruption.install()
