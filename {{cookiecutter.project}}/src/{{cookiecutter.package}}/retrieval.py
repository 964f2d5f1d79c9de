"""Retrieval: a version of the registry, as the bundle that the image is built from."""

from pathlib import Path

from . import bundle
from .inference import Predictor
from .serving.served import prove
from .serving.source import registered
from .settings import Settings


def retrieve(settings: Settings) -> str:
    """Put the version that ``image.model`` names in the place of the pipeline's bundle.

    Returns
    -------
    str
        What is there now, in a line.

    Raises
    ------
    SettingsError
        Where it names no version.
    RegistryError
        Where nobody answers, or there is no such version.
    BundleError
        Where the version holds no bundle, or does not answer as it did when it was made.
    """
    found = fetch(settings, settings.image.model)
    prove(Predictor.load(found))
    card = bundle.copy(found, settings.serving.bundle)
    return f"version {card['version']}, {settings.image.model}, in {settings.serving.bundle}"


def fetch(settings: Settings, model: str) -> Path:
    """Return a folder with the bundle of a version; raise as `retrieve` does."""
    if settings.image.mlflow:
        section = settings.tracking.model_copy(update={"uri": settings.image.mlflow})
        settings = settings.model_copy(update={"tracking": section})
    source = registered(settings, model, "image.model", "train")
    return source.fetch(source.fingerprint())
