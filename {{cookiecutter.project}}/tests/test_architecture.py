import ast
import subprocess
import sys
from pathlib import Path

import pytest

import {{ cookiecutter.package }} as project

ROOT = Path(project.__file__).parent
LAYERS = [
    {"errors"},
    {"settings"},
    {"contract"},
    {"encoding"},
    {"violations", "preprocessing", "bundle"},
    {"inspection", "data", "inference"},
    {"evaluation", "batch"},
    {"training", "plots"},
    {"stages", "serving"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path):
    """Names of this package's modules that a file imports, wherever in the file."""
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [a.name for a in node.names]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path):
    """A module imports only modules of lower layers."""
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if name != "__init__":
        assert [] == [other for other in imported(path) if LEVEL[other] >= LEVEL[name]]


def test_serving_is_light():
    """The service works without the training libraries; its import needs no scikit-learn either."""
    code = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pandas", "pyarrow", "matplotlib", "charset_normalizer", "tqdm"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import {project.__name__}.serving.app
assert "sklearn" not in sys.modules
import {project.__name__}.inference
"""
    subprocess.run([sys.executable, "-c", code], check=True)
