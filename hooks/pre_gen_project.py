"""Refuse answers that would not make a working project, each in one line."""

import json
import keyword
import os
import re
import sys
import unicodedata
from pathlib import Path

ANSWERS = r"""{{ cookiecutter | jsonify }}"""

TEXTS = ("project_name", "project", "package", "description", "author", "owner")

# Imports and distributions of a generated project, now or later: a package of
# the same name would hide them, or be hidden.
DEPENDENCIES = """
aiohappyeyeballs aiohttp aiohttp_retry aiosignal alembic amqp annotated_doc annotated_types antlr4
antlr4_python3_runtime anyio appdirs argcomplete asgiref ast_serialize astroid asyncssh atpublic
attr attrs billiard black blackd blib2to3 blinker boolean boolean_py cachecontrol cachetools celery
certifi cffi cfgv charset_normalizer click click_didyoumean click_plugins click_repl cloudpickle
colorama colorlog commitizen configobj contourpy coverage cryptography cycler cyclonedx
cyclonedx_python_lib dask databricks databricks_sdk dateutil decli deepmerge defusedxml deprecated
dictdiffer dill diskcache distlib distributed distro docker dotenv dpath dulwich dvc dvc_data
dvc_http dvc_objects dvc_render dvc_studio_client dvc_task entrypoints evidently execnet fastapi
fastapi_offline filelock flake8 flask flask_cors flatbuffers flatten_dict flit_core flufl flufl_lock
fontTools fonttools frozenlist fsspec funcy git gitdb gitpython google google_auth
googleapis_common_protos grandalf graphene graphql graphql_core graphql_relay gto gunicorn h11
hatchling httpcore httpcore2 httptools httpx httpx2 httpx2_jsfetch huey hydra hydra_core hypothesis
identify idna importlib_metadata iniconfig isort iterative_telemetry itsdangerous jinja2 jiter
joblib jsfetch kiwisolver kombu librt license_expression lightgbm mako markdown markdown_it
markdown_it_py markupsafe matplotlib mccabe mdurl ml_dtypes mlflow mlflow_skinny mlflow_tracing
mpl_toolkits msgpack msgspec multidict mypy mypy_extensions mypyc narwhals networkx nodeenv numpy
omegaconf onnx onnxruntime opentelemetry opentelemetry_api opentelemetry_exporter_http_transport
opentelemetry_exporter_otlp_common opentelemetry_exporter_otlp_proto_common
opentelemetry_exporter_otlp_proto_http opentelemetry_instrumentation
opentelemetry_instrumentation_asgi opentelemetry_proto opentelemetry_sdk
opentelemetry_semantic_conventions opentelemetry_util_http optuna orjson packageurl
packageurl_python packaging packaging_legacy_version pandas pathspec pil pillow pip pip_api
pip_audit pip_requirements_parser pkg_resources platformdirs pluggy poetry poetry_core pre_commit
prettytable prometheus_client prompt_toolkit propcache protobuf psutil psycopg psycopg_binary public
py py_serializable pyarrow pyasn1 pyasn1_modules pycodestyle pycparser pydantic pydantic_core
pydantic_settings pydevd_plugins pydot pyflakes pygit2 pygments pygtrie pylab pylint
pymdown_extensions pymdownx pyparsing pytest pytest_cov pytest_xdist python python_dateutil
python_discovery python_dotenv pythoncom pytokens pywin32 pyyaml questionary ray requests rich
ruamel ruamel_yaml ruff scikit_learn scipy scmrepo semver serializable setuptools shellingham
shortuuid shtab site_packages six skl2onnx sklearn skops smmap sniffio sortedcontainers sqlalchemy
sqlparse sqltrie src starlette tabulate termcolor tests threadpoolctl tomli tomli_w tomlkit torch
tqdm truststore typer types_pyyaml typing_extensions typing_inspection tzdata tzlocal urllib3
uvicorn uvloop validate venv vine virtualenv voluptuous waitress watchfiles wcwidth websockets
werkzeug wheel win32 win32api wrapt xdist xgboost yaml yarl zc zc_lockfile zensical zipp
"""

# Import lines of the tests hold the name and have to stay within 100 characters.
LONGEST_PACKAGE = 40

OPTIONS_WITH_VALUE = (
    *("-c", "--checkout", "--directory", "-o", "--output-dir", "--config-file", "--debug-file"),
    *("--replay-file", "--accept-hooks"),
)


def suggest(name):
    """Turn any text into a package name that is accepted."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    if not slug:
        return "penguins"
    if slug[0].isdigit():
        slug = f"model_{slug}"
    return f"{slug}_model" if reserved(slug) else slug


def reserved(name):
    """Say what a package of this name would collide with, or None."""
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "a Python keyword"
    if name in sys.stdlib_module_names or name == "test":
        return "a module of the standard library"
    if name in DEPENDENCIES.split():
        return "taken in every generated project"
    return None


def check_package(package):
    """Yield what is wrong with the package name."""
    better = suggest(package)[:LONGEST_PACKAGE].rstrip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        yield f"package: {package!r} is not a lower-case Python package name", better
    elif len(package) > LONGEST_PACKAGE:
        yield f"package: {package!r} is longer than {LONGEST_PACKAGE} characters", better
    elif reason := reserved(package):
        yield f"package: {package!r} is {reason}", better


def check_project(project):
    """Yield what is wrong with the folder, repository and distribution name."""
    # What PEP 508, GitHub and image names have in common.
    fits = re.fullmatch(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*", project) and len(project) <= 100
    taken = re.sub(r"[-_.]+", "_", project) in DEPENDENCIES.split()
    better = suggest(project.removesuffix(".git")).replace("_", "-")[:100]
    if not fits or project.endswith(".git"):
        yield f"project: {project!r} is no name for a folder, repository and distribution", better
    elif taken:
        yield f"project: {project!r} is taken in every generated project", better


def check_owner(owner):
    """Yield what is wrong with the GitHub login."""
    if not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}", owner):
        better = suggest(owner).replace("_", "-")[:39].strip("-")
        yield f"owner: {owner!r} is not a GitHub organisation or user", better


def check_texts(answers):
    """Yield the free texts that are empty or do not fit on one line."""
    for name in ("project_name", "description", "author"):
        text = answers[name]
        odd = any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)
        if odd or not text.strip():
            plain = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
            yield (
                f"{name}: {text!r} is not one line of text",
                " ".join(plain.split()) or "Penguins",
            )


def check_options(answers):
    """Yield unknown options, unknown values and unsupported combinations."""
    options = answers["_optional"]
    for name in (name for name in answers if not name.startswith("_")):
        if name not in TEXTS and name not in options:
            known = ", ".join([*TEXTS, *options])
            yield f"{name}: there is no such question", f"one of {known}"
    for name, values in options.items():
        if answers[name] not in values:
            yield f"{name}: {answers[name]!r} is not an option", " or ".join(values)
    for combination in answers["_unsupported"]:
        if all(answers[name] == value for name, value in combination.items()):
            name = next(iter(combination))
            others = [value for value in options[name] if value != combination[name]]
            pair = " with ".join(f"{name}={value}" for name, value in combination.items())
            yield f"{pair} is not supported", " or ".join(f"{name}={value}" for value in others)


def given_names(command):
    """Find the names of the answers on cookiecutter's or cruft's command line.

    Both drop unknown names before a hook could see them.
    """
    words = iter(command)
    tool = next((Path(w).name for w in words if Path(w).name in ("cookiecutter", "cruft")), "")
    if tool == "cruft":
        extra = next((next(words, "{}") for word in words if word == "--extra-context"), "{}")
        return list(json.loads(extra))
    positional = []
    for word in words:
        if word in OPTIONS_WITH_VALUE:
            next(words, "")
        elif not word.startswith("-"):
            positional.append(word)
    return [word.partition("=")[0] for word in positional[1:]]


def command_line():
    """Read the command that runs this hook, where the system shows it word by word."""
    shown = Path(f"/proc/{os.getppid()}/cmdline")
    return shown.read_text().removesuffix("\0").split("\0") if shown.exists() else []


def problems(answers, command):
    """List every problem as a line with a value that would work."""
    unknown = dict.fromkeys(given_names(command))
    found = [
        *check_options({**unknown, **answers}),
        *check_texts(answers),
        *check_project(answers["project"]),
        *check_package(answers["package"]),
        *check_owner(answers["owner"]),
    ]
    return [f"{problem}; {better} would work" for problem, better in found]


def main():
    """Print the problems and fail if there are any."""
    found = problems(json.loads(ANSWERS), command_line())
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
