"""Files that the stages leave: JSON that a person can read, and the hash a file is known by."""

import hashlib
import json
from pathlib import Path
from typing import Any


def write_json(content: Any, path: Path) -> None:
    """Write JSON that is pleasant to review; raise ValueError for what JSON cannot hold."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Hash a file of any size in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
