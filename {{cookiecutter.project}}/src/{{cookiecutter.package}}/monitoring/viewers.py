"""Viewers: Evidently's and popmon's own reports of the last window, for the eye alone.

Neither runs beside this project's pandas, so each has an environment of its own. What they call
drift has no say here: docs/monitoring-tools.md tells how often they would be wrong.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import REPORTS
from ..encoding import UNSEEN, Matrix
from ..errors import SettingsError, ViewerError
from ..settings import Settings
from .account import Account, collect
from .monitor import current

FOLDER = Path(".cache/monitoring")
MOMENT = "(moment)"
SHOWN = 3


@dataclass(frozen=True)
class Tool:
    """A tool, what is installed for it, and the program that makes its report there.

    The program gets the reference, the window and where to write as its arguments.
    """

    requirements: tuple[str, ...]
    program: str


TOOLS = {
    "evidently": Tool(
        ("evidently==0.7.23", "pandas==3.0.6", "pyarrow==25.0.1"),
        """
import sys
import pandas
from evidently import Report
from evidently.presets import DataDriftPreset
reference, window = (pandas.read_parquet(path).iloc[:, 1:] for path in sys.argv[1:3])
Report([DataDriftPreset()]).run(window, reference).save_html(sys.argv[3])
""",
    ),
    "popmon": Tool(
        ("popmon==1.4.12", "pandas==2.3.3", "pyarrow==25.0.1"),
        """
import sys
import pandas, popmon
reference, window = (pandas.read_parquet(path) for path in sys.argv[1:3])
width = (window.iloc[-1, 0] - window.iloc[0, 0]) / 10
popmon.df_stability_report(
    window, time_axis=window.columns[0], time_width=str(max(width, pandas.Timedelta("1s"))),
    time_offset=str(window.iloc[0, 0]), reference_type="external", reference=reference,
).to_file(sys.argv[3])
""",
    ),
}


def view(settings: Settings, name: str) -> Path:
    """Let a tool make its report of the last window that was checked.

    Parameters
    ----------
    settings : Settings
    name : str
        A key of `TOOLS`.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    SettingsError
        Where there is no such tool.
    ViewerError
        Where no window was checked, or the tool cannot be installed or fails.
    """
    if name not in TOOLS:
        raise SettingsError(f"--with {name}: unknown; expected {' or '.join(TOOLS)}")
    outcome = current(settings)
    account = collect(settings, outcome) if outcome else None
    if account is None or account.events is None:
        raise ViewerError(f"no window was checked yet that {name} could show: run `monitor` first")
    folder = FOLDER / name
    python = _environment(folder, TOOLS[name])
    data = [folder / f"{part}.parquet" for part in ("reference", "window")]
    made = REPORTS / f"{name}.html"
    made.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path, frame in zip(data, _frames(account), strict=True):
            frame.to_parquet(path, index=False)
        run([python, "-c", TOOLS[name].program, *data, made], f"{name} failed")
    finally:
        # What is deleted from the store must not stay here.
        for path in data:
            path.unlink(missing_ok=True)
    return made


def _environment(folder: Path, tool: Tool) -> Path:
    """Install a tool once; return the Python that has it."""
    python, stamp = folder / "bin/python", folder / "installed.txt"
    wanted = "\n".join(tool.requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    why = f"cannot install {tool.requirements[0]} into {folder}, which takes a package registry"
    if uv := shutil.which("uv"):
        run([uv, "venv", "--quiet", "--python", sys.executable, folder], why)
        install: list[Any] = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        run([sys.executable, "-m", "venv", folder], why)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*install, *tool.requirements], why)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run(words: list[Any], why: str) -> None:
    """Run a command; raise ViewerError with its last line where it fails."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ViewerError(f"{why}: {said[-1].strip() if said else f'exit code {done.returncode}'}")


def _frames(account: Account) -> tuple[Any, Any]:
    """Return reference and window as tables whose first column is a moment.

    The columns of the reference are sorted each for itself, so that no row stands in it: what a
    tool says of two columns together means nothing.
    """
    import pandas as pd

    compared = {name: pair for name, pair in account.compared.items() if not name.startswith("(")}
    events = account.events
    moments = pd.to_datetime([place.ts for place in events.places] if events else [], unit="s")
    rows = max((len(sample.values) for sample, _ in compared.values()), default=0)
    before = pd.date_range(end=moments[0], periods=rows, freq="s")
    frames = []
    for place, times in ((0, before), (1, moments)):
        columns = {MOMENT: times}
        for name, pair in compared.items():
            values = pair[0].values if place == 0 else pair[1]
            if place == 0:
                values = np.random.default_rng(0).permutation(values)
            columns[name] = _decoded(values, pair[0].categories)
        frames.append(pd.DataFrame(columns))
    return frames[0], frames[1]


def _decoded(values: Matrix, categories: tuple[str, ...] | None) -> Any:
    if categories is None:
        return values
    names = dict(enumerate(categories)) | {UNSEEN: "(unknown in training)"}
    return [None if np.isnan(value) else names[int(value)] for value in values]
