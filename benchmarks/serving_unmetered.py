"""Run by the Python of a generated project: `serve` with a service that counts nothing.

No setting turns the numbers off; this shows what they cost.
"""

import sys

from penguins.cli import main
from penguins.serving.metrics import Metrics

for name in ("request", "phase", "rows", "batch", "queued", "events"):
    # Raises where there is none of this name: nothing would be turned off.
    getattr(Metrics, name)
    setattr(Metrics, name, lambda *_: None)

if __name__ == "__main__":
    sys.argv[1:] = ["serve"]
    main()
