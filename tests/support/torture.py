"""Whether the long runs were asked for: `make torture`."""

import os

LONG = os.environ.get("TORTURE") == "1"
