"""The plot of the loop, drawn by the project's Python, which has the library for it."""

import json
import sys
from collections import deque

from matplotlib.figure import Figure

SHOWN = 100


def draw(facts):
    """Draw the share of right answers among the last hundred, and what happened when."""
    last, shares = deque(maxlen=SHOWN), []
    for hit in facts["hits"]:
        last.append(hit)
        shares.append(sum(last) / len(last))
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(SHOWN, len(shares)), shares[SHOWN:], color="#1f5fa8")
    colours = {"drift": "#888888", "alarm": "#b3261e", "retrained": "#9a6700", "swapped": "#1a7f37"}
    heights = (0.05, 0.13, 0.21, 0.29)
    for (event, what), height in zip(facts["marks"], heights, strict=False):
        colour = colours[what]
        axes.axvline(event, color=colour, linestyle="--", linewidth=1)
        axes.annotate(f" {what}", (event, height), color=colour)
    axes.set(
        xlabel="events",
        ylabel=f"right answers among the last {SHOWN}",
        ylim=(0, 1.02),
        title="The colony changes, and the service learns it",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(facts["to"], dpi=120)


if __name__ == "__main__":
    draw(json.loads(sys.argv[1]))
