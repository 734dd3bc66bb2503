"""`predict --explain`: pictures with what speaks for a label."""

from collections.abc import Sequence
from pathlib import Path

from zsic.console.words import err
from zsic.core.errors import SpecError
from zsic.core.spec import DecodeSpec
from zsic.core.terminal import printable


def explain(
    images: Sequence[Path],
    labels: str,
    model: str,
    templates: Sequence[str],
    decode_mode: str,
    target: Path,
    label: str | None,
) -> None:
    """Write each picture with the heat map of its best label, or of `label`.

    One picture goes to the file `target`, several go into it as a folder.  Raises `SpecError` for a target that does
    not fit.  Pictures that cannot be decoded are left out: `predict` has told them.
    """
    from zsic.core.decode import DecodeError, decode
    from zsic.core.heat_map import draw_heat_map
    from zsic.models.explain import Explainer

    spec = DecodeSpec(mode=decode_mode)  # type: ignore[arg-type]
    places = _places(images, target)
    explainer = Explainer(model, labels, templates=templates, decode=spec)
    for path, place in zip(images, places, strict=True):
        data = path.read_bytes()
        try:
            found = explainer.explain(data, label)
            picture = decode(data, spec)
        except DecodeError:
            continue
        seen = explainer.geometry.seen(picture.height, picture.width)
        drawn = draw_heat_map(picture, found.heat_HW, seen, f"{printable(found.label)}   {found.score:.3f}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            drawn.save(place)
        except OSError as error:
            raise SpecError(f"--explain: {place}: {error.strerror or error}") from None
        err.print(f"{printable(found.label)} of {printable(str(path))}: {printable(str(place))}", markup=False)


def _places(images: Sequence[Path], target: Path) -> list[Path]:
    """Where each picture goes: never onto one of the images; of two that have one name, the second gets a number."""
    taken = {path.resolve() for path in images}
    is_file = target.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and not target.is_dir()
    if is_file and len(images) > 1:
        raise SpecError(f"--explain: {target} is one file and there are {len(images)} images; give a folder")
    if is_file and target.resolve() in taken:
        raise SpecError(f"--explain: {target} is the image itself; give another name")
    if is_file:
        return [target]
    if target.is_file():
        raise SpecError(f"--explain: {target} is a file; give a folder, or a name that ends in .png")
    places = []
    for path in images:
        place, n = target / f"{path.stem}.png", 1
        while place.resolve() in taken:
            n += 1
            place = target / f"{path.stem}-{n}.png"
        taken.add(place.resolve())
        places.append(place)
    return places
