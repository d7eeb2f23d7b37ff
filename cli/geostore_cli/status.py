"""`geostore status`: what the store holds and how it is."""

from __future__ import annotations

from geostore_cli.listing import bytes_text, time_text, write_pairs
from geostore_cli.parameters import format_option
from geostore_cli.session import Session, command, pass_session

__all__ = ["status"]


@command()
@format_option()
@pass_session
def status(session: Session, output_format: str | None) -> None:
    """Show the store's size and state."""
    from geostore.types.geo import datetime_from_us

    with session.open_store() as store:
        state = store.status()
    values = state.to_json()
    values["created"] = time_text(datetime_from_us(values.pop("created_us")))
    shown = {
        "store": state.path,
        "datasets": f"{state.datasets:,}",
        "scenes": f"{state.scenes:,}",
        "tiles": f"{state.tiles:,}",
        "size": bytes_text(state.bytes),
        "disk free": bytes_text(state.disk_free_bytes),
        "slots used": f"{state.slots_used:,} of 4,096",
        "health": state.read_only_reason or "good",
        "created": str(values["created"]),
        "format": f"version {state.format_version}",
    }
    write_pairs(values, session.listing_format(output_format), shown=shown)
