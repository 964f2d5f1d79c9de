"""Viewers."""

from ..settings import Settings


def view(settings: Settings, tool: str) -> str:
    """Show."""
    raise NotImplementedError
