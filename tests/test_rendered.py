"""What stands in the generated files: rendered, parsed, compiled, and nobody's leftovers."""

import json
import re
import tomllib

import pytest
import yaml
from conftest import KIT, files, generate
from test_hooks import AWKWARD

from scripts.locks import combinations

COPIED = re.compile(r"src/.*|\.github/.*|data/.*|deploy/.*|monitoring/grafana/.*")
LOCKS = ("poetry.lock", "requirements.txt", "requirements-dev.txt")


def texts(project):
    """Read every text file, by path."""
    names = (name for name in sorted(files(project)) if not name.endswith((".png", ".ico")))
    # What a dependency says of itself may name its home.
    about = re.compile(r'^description = ".*\n', re.MULTILINE)
    return {
        name: about.sub("", text) if name in LOCKS else text
        for name, text in ((name, (project / name).read_text()) for name in names)
    }


TARGETS = ("ssh", "kubernetes", "none", "ssh")


@pytest.fixture(
    scope="module",
    params=[(*pair, deploy) for pair, deploy in zip(combinations(), TARGETS, strict=True)],
    ids="-".join,
)
def project(request, tmp_path_factory):
    """An awkwardly named project of every manager and quality, with a target."""
    answers = dict(zip(("manager", "quality", "deploy"), request.param, strict=True))
    return generate(tmp_path_factory.mktemp("rendered"), owner="zoe", **answers, **AWKWARD)


def test_no_jinja_is_left(project):
    """No expression, statement or line statement survives, nor the template's own words."""
    jinja = re.compile(r"(?<!\$)\{\{|\{%|^\s*#%", re.MULTILINE)
    left = {
        name
        for name, text in texts(project).items()
        if "cookiecutter" in text or (not COPIED.fullmatch(name) and jinja.search(text))
    }
    assert set() == left
    assert [] == [name for name in files(project) if "cookiecutter" in name]


def test_no_blank_lines_pile_up(project):
    """Conditions leave no holes: never more than two blank lines, or one at an end."""
    ragged = re.compile(r"\n{4}|\n\n\Z|\A\n|[^\n]\Z")
    written = {name: text for name, text in texts(project).items() if name not in LOCKS}
    assert set() == {name for name, text in written.items() if text and ragged.search(text)}


def test_nobody_is_left_over(project):
    """The default answers do not show where others were given, and no machine or mail address."""
    written = {name: text for name, text in texts(project).items() if name not in LOCKS}
    left = re.compile(rf"your-org|Penguins team|{KIT}|(?<![:\w])[\w.]+@[\w-]+\.\w+")
    found = {name: left.findall(text) for name, text in written.items()}
    author = ["z@example.org"]
    assert {} == {name: words for name, words in found.items() if words not in ([], author)}


def test_a_long_package_name_keeps_lines_short(tmp_path):
    """Lines that hold the package name pass the linters with the longest name that is allowed."""
    project = generate(tmp_path, package="p" * 40)
    written = [line for path in project.rglob("*.py") for line in path.read_text().splitlines()]
    assert 100 >= max(map(len, written))


def test_addresses(project):
    """Every host that is named is known; locks name none, so any registry serves them."""
    hosts = {
        host
        for name, text in texts(project).items()
        for host in re.findall(r"https?://(?:[^/@\s]+@)?([\w.-]+)", text)
        if name != "LICENSE" and not host.endswith(".example")
    }
    sources = {"allisonhorst.github.io", "doi.org"}
    inside = {"prometheus", "relay"}
    assert inside < set(yaml.safe_load((project / "compose.yaml").read_text())["services"])
    outside = {"cyclonedx.org", "github.com", "api.github.com", "127.0.0.1", "www.w3.org"}
    assert {*outside, *inside, *sources} == hosts
    assert [] == [
        name for name in LOCKS if name in files(project) and "://" in texts(project)[name]
    ]


def test_everything_parses(project):
    """YAML, TOML and JSON are valid, Python compiles."""
    for name, text in texts(project).items():
        if name.endswith((".yaml", ".yml")):
            assert all(yaml.safe_load_all(text)), name
        elif name.endswith((".toml", "poetry.lock")):
            assert tomllib.loads(text), name
        elif name.endswith(".json"):
            assert json.loads(text), name
        elif name.endswith(".py"):
            compile(text, name, "exec")


def test_free_text_reaches_the_settings(project):
    """params.yaml holds the name and description as they were typed."""
    settings = yaml.safe_load((project / "params.yaml").read_text())["project"]
    assert {"name": AWKWARD["project_name"], "description": AWKWARD["description"]} == settings


def test_the_tools_are_those_of_the_quality_answer(project):
    """A project has the configuration and dependencies of one set of tools."""
    tables = tomllib.loads((project / "pyproject.toml").read_text())
    names = {re.match(r"[\w-]+", spec)[0] for spec in tables["dependency-groups"]["dev"]}
    chosen = {"black", "isort", "pylint"} if (project / ".flake8").exists() else {"ruff"}
    assert chosen == {"black", "isort", "pylint", "ruff"} & set(tables["tool"])
    tools = chosen | ({"flake8"} if "black" in chosen else set())
    assert tools == {"black", "isort", "flake8", "pylint", "ruff"} & names


def test_what_the_image_promises(project):
    """The image runs as nobody in particular, and says by itself whether it can predict."""
    stages = (project / "Dockerfile").read_text().replace("\\\n", " ").split("\nFROM ")
    runtime = next(stage for stage in stages if "AS runtime\n" in stage)
    assert stages[-1].startswith("runtime\n")
    lines = [*runtime.splitlines()[1:], *stages[-1].splitlines()[1:]]
    words = [line.split(maxsplit=1) for line in lines if line.strip()]
    said = {instruction: rest for instruction, rest in words if instruction != "#"}
    assert "10001:10001" == said["USER"]
    assert "/health/ready" in said["HEALTHCHECK"]
    assert '["python", "-m", "zoe_s_pinguins_o", "serve"]' == said["CMD"]
