"""`retrieval model export`: prepare a model for searching without torch."""

import click

from retrieval.extras import require_extra


@click.group()
def model() -> None:
    """Prepare models."""


@model.command("export")
@click.argument("name", metavar="MODEL")
@click.option("--renew", is_flag=True, help="Export again where the export is current.")
def export_model(name: str, *, renew: bool) -> None:
    """Export MODEL (a run folder, name/tag or hf-hub:NAME) to ONNX, to run it without torch and faster.

    The graphs lie beside the weights, or in the cache where those are not in a folder that can be written to.
    """
    from retrieval.encoder.onnx.files import find_export

    exported = None if renew else find_export(name, log=False)
    if exported is None:
        with require_extra("train", f"Exporting {name}"):
            from retrieval.encoder.onnx.export import export_model as export

        exported = export(name, renew=renew)
    deviations = " and ".join(f"{value:.1e} ({tower})" for tower, value in exported.deviation.items())
    click.echo(f"{exported.folder}: rows differ from torch's by at most {deviations}")
