"""The command line: parse, call, exit code. Commands import what they need: help is instant."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import ProjectError, SettingsError

if TYPE_CHECKING:
    from .settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a table to a served model. All settings stand in params.yaml.",
)

events = typer.Typer(no_args_is_help=True, help="Keep, export and delete what was predicted.")
app.add_typer(events, name="events")

Params = Annotated[Path, typer.Option("--params", help="The settings.")]
PARAMS = Path("params.yaml")


def _settings(params: Path) -> "Settings":
    from . import settings

    return settings.load(params)


def _run(stage: str, params: Path) -> None:
    settings = _settings(params)
    from . import stages

    _say(stage, stages.STAGES[stage](settings))


def _say(stage: str, outcome: str) -> None:
    typer.echo(f"{stage:<9} {outcome}")


@app.command()
def check(params: Params = PARAMS) -> None:
    """Check what DVC could not: the settings, that it can record them, and killed runs."""
    settings = _settings(params)
    from . import killed
    from .settings import require_recordable

    require_recordable(settings)
    if killed.release():
        typer.echo("released what a killed run held")


@app.command()
def snapshot(params: Params = PARAMS) -> None:
    """Read the source and keep it as data/snapshot.parquet."""
    _run("snapshot", params)


@app.command()
def contract(
    params: Params = PARAMS,
    accept: Annotated[bool, typer.Option("--accept", help="Infer it anew.")] = False,
) -> None:
    """Check the snapshot against contract.json, or infer it."""
    settings = _settings(params)
    from . import stages

    _say("contract", stages.agree(settings, accept))


@app.command()
def prepare(params: Params = PARAMS) -> None:
    """Split the snapshot into training and test rows."""
    _run("prepare", params)


@app.command()
def train(params: Params = PARAMS) -> None:
    """Cross-validate and fit the model."""
    _run("train", params)


@app.command()
def evaluate(params: Params = PARAMS) -> None:
    """Measure the model and draw it, into reports/."""
    _run("evaluate", params)


@app.command()
def package(params: Params = PARAMS) -> None:
    """Write the bundle that serving loads."""
    _run("package", params)


@app.command()
def register(params: Params = PARAMS) -> None:
    """Keep the finished run in MLflow; its model becomes the challenger."""
    _run("register", params)


@app.command()
def promote(params: Params = PARAMS) -> None:
    """Let the challenger serve, if the gate finds it better than the champion."""
    settings = _settings(params)
    from . import release

    _say("promote", release.promote(settings))


@app.command()
def rollback(params: Params = PARAMS) -> None:
    """Put the previous champion back."""
    settings = _settings(params)
    from . import release

    _say("rollback", release.rollback(settings))


@app.command()
def report(
    params: Params = PARAMS,
    show: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write reports/report.html: one page about the run, for everybody."""
    _run("report", params)
    if show:
        from .report import show as open_report

        if not open_report():
            typer.echo("there is no browser here: take the file to one")


@app.command()
def site(params: Params = PARAMS) -> None:
    """Lay out the pages of the documentation site, which `make site` builds."""
    settings = _settings(params)
    from . import site as pages

    _say("site", pages.write(settings))


@app.command()
def ui(
    params: Params = PARAMS,
    port: Annotated[int, typer.Option("--port", help="Of this machine.")] = 5000,
) -> None:
    """Show runs and models in MLflow's pages."""
    settings = _settings(params)
    from . import tracking

    tracking.browse(settings, port)


@app.command()
def pipeline(params: Params = PARAMS) -> None:
    """Run all stages, from the source to the bundle."""
    settings = _settings(params)
    from . import stages

    for name, stage in stages.STAGES.items():
        _say(name, stage(settings))


@app.command()
def fetch(params: Params = PARAMS) -> None:
    """Make the version that image.model names the bundle, proven on its stored examples."""
    settings = _settings(params)
    from . import retrieval

    _say("fetch", retrieval.retrieve(settings))


@app.command()
def setting(
    key: Annotated[str, typer.Argument(help="Such as image.model.")], params: Params = PARAMS
) -> None:
    """Show one setting, as params.yaml and the environment have it."""
    settings = _settings(params)
    from .settings import value

    typer.echo(value(settings, key))


@app.command()
def summary(
    params: Params = PARAMS,
    image: Annotated[str, typer.Option("--image", help="Built from the bundle.")] = "",
) -> None:
    """Compare the bundle and its image with what is deployed, in Markdown."""
    settings = _settings(params)
    from .summary import summary as compare

    typer.echo(compare(settings, image))


@app.command()
def score(
    source: Annotated[
        Path, typer.Option("--in", help="CSV or Parquet with the contract's columns, or a folder.")
    ],
    destination: Annotated[
        Path, typer.Option("--out", help="Where to write, .csv or .parquet; a folder for a folder.")
    ],
    params: Params = PARAMS,
) -> None:
    """Predict every row of a file, or of all files of a folder."""
    settings = _settings(params)
    from . import batch
    from .inference import Predictor

    predictor = Predictor.load(settings.serving.bundle)
    scored = batch.score(predictor, source, destination, settings.data)
    typer.echo(batch.summary(scored, predictor.card["version"], destination))


@app.command()
def serve(params: Params = PARAMS) -> None:
    """Serve the bundle over HTTP."""
    settings = _settings(params)
    from .serving.server import serve as serve_forever

    serve_forever(settings)


@app.command()
def smoke(
    url: Annotated[str, typer.Option("--url", help="Where the service is.")],
    params: Params = PARAMS,
    seconds: Annotated[float, typer.Option("--seconds", help="To wait until it is ready.")] = 60,
) -> None:
    """Ask a running service for what the bundle promises; a key for it stands in SMOKE_KEY."""
    settings = _settings(params)
    from . import smoke as smoke_test

    bundle, key = settings.serving.bundle, os.environ.get("SMOKE_KEY")
    _say("smoke", smoke_test.smoke(url, bundle, key, seconds))


@app.command()
def monitor(
    params: Params = PARAMS,
    watch: Annotated[
        float | None, typer.Option("--watch", min=1, help="Again after so many seconds.")
    ] = None,
    viewer: Annotated[
        str | None, typer.Option("--with", help="View it in evidently or popmon.")
    ] = None,
) -> None:
    """Check what came since the last time for drift and errors; write reports/monitoring.html."""
    settings = _settings(params)
    from . import rounds

    def say(line: str) -> None:
        typer.echo(line, err=line.startswith(("error: ", "warning: ")))

    if viewer is not None:
        from .monitoring.viewers import view

        _say("monitor", str(view(settings, viewer)))
    elif watch is not None:
        rounds.watch(settings, watch, say)
    else:
        rounds.look(settings, say)


@app.command()
def retrain(
    params: Params = PARAMS,
    why: Annotated[str | None, typer.Option("--why", help="A reason of your own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also before the cooldown ends.")] = False,
) -> None:
    """Train on newer rows, where there is a reason to; the gate decides what serves."""
    settings = _settings(params)
    from . import retraining

    outcome, said = retraining.retrain(settings, why, force)
    _say("retrain", f"{outcome}: {said}")


@app.command()
def dispatch(params: Params = PARAMS) -> None:
    """Have GitHub start retraining, if drift or degradation is confirmed; once a cooldown."""
    settings = _settings(params)
    from . import dispatch as dispatching

    repository = dispatching.Repository.from_environment()
    _say("dispatch", dispatching.dispatch(settings, repository).told)


@app.command()
def relay(
    params: Params = PARAMS,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="On which port.")] = 9095,
) -> None:
    """Do the same whenever Alertmanager says that something is wrong."""
    settings = _settings(params)
    from .relay import serve as relay_forever

    relay_forever(settings, host, port)


@events.command("ingest")
def ingest_events(
    params: Params = PARAMS,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Bring what waits in the log into the store; the service does so itself."""
    settings = _settings(params)
    from . import ingestion

    job = ingestion.Job.of(settings.events)
    if watch:
        ingestion.watch(job)
    else:
        typer.echo(f"{ingestion.ingest(job)} events ingested")


@events.command("export")
def export_events(
    destination: Annotated[Path, typer.Option("--out", help="A Parquet file.")],
    since: Annotated[str | None, typer.Option("--since", help="Such as 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Up to, but without.")] = None,
    params: Params = PARAMS,
) -> None:
    """Write predictions with their latest truths to a Parquet file."""
    settings = _settings(params)
    from . import export

    rows = export.export(settings.events.store, destination, since, until)
    typer.echo(f"{rows} predictions in {destination}")


@events.command("prune")
def prune_events(params: Params = PARAMS) -> None:
    """Delete predictions that are older than events.retention_days, with their truths."""
    settings = _settings(params)
    from .store import opened

    days = settings.events.retention_days
    with opened(settings.events.store) as store:
        deleted = store.prune(time.time() - days * 86400) if days else 0
    typer.echo(f"{deleted} predictions deleted; events.retention_days is {days:g}")


@events.command("erase")
def erase_events(
    entity: Annotated[str, typer.Option("--entity", help="Whom or what, as rows name it.")],
    params: Params = PARAMS,
) -> None:
    """Delete all predictions about one entity, with their truths."""
    settings = _settings(params)
    if settings.events.entity is None:
        raise SettingsError("events.entity is null: name the column that tells whom a row is about")
    from . import entities, ingestion
    from .store import opened

    job = ingestion.Job.of(settings.events)
    complete = ingestion.catch_up(job)
    with opened(job.store) as store:
        deleted = store.erase(entities.pseudonym(entity, job.secret))
    typer.echo(f"{deleted} predictions deleted")
    if not complete:
        typer.echo("the log still holds events of before: run this again when they are ingested")


@events.command("migrate")
def migrate_events(params: Params = PARAMS) -> None:
    """Make the store's tables, or bring them up to date; the service does so itself."""
    settings = _settings(params)
    from .store import REVISION, opened

    with opened(settings.events.store):
        typer.echo(f"the tables of the store are of revision {REVISION}")


labels = typer.Typer(no_args_is_help=True, help="Tell what turned out to be true.")
app.add_typer(labels, name="labels")


@labels.command("import")
def import_labels(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV or Parquet: prediction_id, label and more.")
    ],
    params: Params = PARAMS,
) -> None:
    """Record what is true of predictions; the same file again changes nothing."""
    settings = _settings(params)
    from . import labels as truths

    _say("labels", str(truths.read(settings, source)))


keys = typer.Typer(no_args_is_help=True, help="The API keys of the service (serving.keys).")
app.add_typer(keys, name="keys")


def _key_file(params: Path) -> Path:
    settings = _settings(params)
    if (path := settings.serving.keys) is None:
        raise SettingsError("serving.keys is null: name a file there, such as keys.txt")
    return path


@keys.command("add")
def add_key(name: str, params: Params = PARAMS) -> None:
    """Make a key; it is shown this once, and counts within a second."""
    path = _key_file(params)
    from .serving.keys import add

    typer.echo(add(path, name))


@keys.command("list")
def list_keys(params: Params = PARAMS) -> None:
    """Show the names of the keys."""
    path = _key_file(params)
    from .serving.keys import read

    for name in read(path):
        typer.echo(name)


@keys.command("revoke")
def revoke_key(name: str, params: Params = PARAMS) -> None:
    """Forget a key, within a second."""
    path = _key_file(params)
    from .serving.keys import revoke

    revoke(path, name)


def main() -> None:
    """Run a command; an error that a user can act on becomes one line and its exit code."""
    try:
        app()
    except ProjectError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
