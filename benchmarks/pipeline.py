"""Measure the pipeline: everything, after one change, with nothing to do: `make bench-pipeline`."""

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks.measure import installed, interleaved, run, table, versions_of, write

ROUNDS = 3


def pipelines(project):
    """List the ways to run the stages: everything, after one change, and with nothing to do."""
    params, values = project / "params.yaml", iter(range(1, 10**6))

    def everything():
        run(project / ".venv/bin/dvc", "repro", "--force", cwd=project)

    def in_one_process():
        run(project / ".venv/bin/python", "-m", "penguins", "pipeline", cwd=project)

    def one_parameter():
        text = re.sub(
            r"params: \{.*?\}", f"params: {{C: {next(values)}}}", params.read_text(), count=1
        )
        params.write_text(text)
        run("make", "pipeline", cwd=project)

    return {
        "`dvc repro --force`, all eight stages": everything,
        "`pipeline`, all in one process": in_one_process,
        "`make pipeline` after one parameter": one_parameter,
        "`make pipeline` with nothing to do": lambda: run("make", "pipeline", cwd=project),
    }


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--project", type=Path, help="an installed project, instead of a new one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = asked.project or installed(Path(name))
        run("make", "pipeline", cwd=project)
        medians = interleaved(pipelines(project), asked.rounds)
        versions = versions_of(
            project, "dvc", "mlflow", "scikit-learn", "pandas", "numpy", "onnxruntime"
        )
    lines = table("From the data to bundle, registry and report", "at most 15 s", medians)
    write("bench-pipeline", f"{versions}. Medians of {asked.rounds} rounds, in turn.", lines)


if __name__ == "__main__":
    main()
