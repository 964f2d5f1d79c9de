"""The operator's addresses; they are there where `serving.admin_token` is set."""

from __future__ import annotations

from secrets import compare_digest
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer

from .errors import ErrorAnswer, no_token
from .schemas import SwapAnswer
from .slot import Slot

# For /docs, which asks for the token; the comparison is ours, as its errors have another shape.
SCHEME = HTTPBearer(auto_error=False, description="The token of serving.admin_token.")
FAILURES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "unauthorized: no token, or another one"},
    409: {"model": ErrorAnswer, "description": "conflict: there is nothing to go back to"},
}


async def _authorized(request: Request) -> None:
    token = request.app.state.settings.serving.admin_token.get_secret_value()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Bytes, as text that is not ASCII cannot be compared in constant time.
    same = compare_digest(given.encode("latin-1"), token.encode())
    if scheme.lower() != "bearer" or not same:
        raise no_token()


router = APIRouter(
    prefix="/admin",
    tags=["operation"],
    dependencies=[Depends(_authorized), Depends(SCHEME)],
    responses=FAILURES,
)


def _slot(request: Request) -> Slot:
    slot: Slot = request.app.state.slot
    return slot


SlotDep = Annotated[Slot, Depends(_slot)]


@router.post("/rollback")
def rollback(slot: SlotDep) -> SwapAnswer:
    """Serve the previous version, and hold this one: the source's next version ends the hold.

    A second request is refused, so that repeating the first does no harm.
    """
    served, held = slot.rollback()
    return SwapAnswer(serving=served.model, held=held.model)


@router.delete("/rollback")
def resume(slot: SlotDep) -> SwapAnswer:
    """End a hold: serve what the source offers."""
    return SwapAnswer(serving=slot.resume().model, held=None)
