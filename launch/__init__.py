"""Scripts: flags, wiring, printing. Each is run as `python -m launch.NAME`."""

import sys

from sparse_gpt import interruption

if sys.argv[:1] == [
    "-m"
]:  # one of them is being started: a signal that comes while it imports ends it like a later one
    interruption.install()
