"""Files that the stages leave: JSON that a person can read, and the hash a file is known by."""

import hashlib
import json
from pathlib import Path
from typing import Any

SNAPSHOT = Path("data/snapshot.parquet")
TRAIN, TEST = Path("data/train.parquet"), Path("data/test.parquet")
CONTRACT = Path("contract.json")
MODEL, TRAINING = Path("models/model.skops"), Path("models/training.json")
TRIALS = Path("models/trials.json")
REPORTS = Path("reports")
METRICS, PLOTS = REPORTS / "metrics.json", REPORTS / "plots"
RUN, DECISION = REPORTS / "run.json", REPORTS / "decision.json"
REPORT = REPORTS / "report.html"


def write_json(content: Any, path: Path) -> None:
    """Write JSON that is pleasant to review; raise ValueError for what JSON cannot hold."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Hash a file of any size in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
