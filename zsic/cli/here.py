"""What happens here and now, without an output: `predict`, `demo`, `model pull`."""

from pathlib import Path
from typing import Annotated

import typer

from zsic.cli.app import Labels, Model, Template, app, model_app
from zsic.core.errors import SpecError


@app.command("predict")
def _predict(
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Labels,
    model: Model = "demo",
    template: Template = None,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Predictions an image; default 5.")] = None,
    decode_mode: Annotated[str, typer.Option("--decode-mode", help="exact, pil or fast.")] = "exact",
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON shaped as transformers' pipeline returns it.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            help="Write the picture with a heat map of what speaks for its best label: a .png, or a folder for "
            "several images.",
            show_default=False,
        ),
    ] = None,
    explain_label: Annotated[
        str | None, typer.Option("--explain-label", help="With --explain: this label.", show_default=False)
    ] = None,
) -> None:
    """Classify a few images here and now, without Ray or an output."""
    from zsic.console.inspect import predict

    if explain_label is not None and explain is None:
        raise SpecError("--explain-label needs --explain, which says where the picture goes")
    templates = tuple(template or ())
    predict(image, labels, model, templates, top_k, decode_mode, as_json=json)
    if explain is not None:
        from zsic.console.explain import explain as explain_images

        explain_images(image, labels, model, templates, decode_mode, explain, explain_label)


@app.command("demo")
def _demo(
    folder: Annotated[Path, typer.Option("--output", help="Folder for pictures and table.")] = Path("zsic-demo"),
    images: Annotated[int, typer.Option("--images", min=10, help="Pictures to draw.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawing.")] = 0,
) -> None:
    """Draw pictures into tar shards, classify them with the bundled model, evaluate, and write a report."""
    from zsic.console.demo import demo

    demo(folder, images, seed)


@model_app.command("pull")
def _model_pull(
    source: Annotated[str, typer.Argument(help="Hub id, or a local folder to convert.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the checkpoint; local.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Commit, tag or branch.")] = None,
) -> None:
    """Fetch a checkpoint once, as safetensors, checked to be complete; the folder may live in the lake."""
    from zsic.console.inspect import pull_model

    pull_model(source, output, revision)
