"""The sentences that labels are put into, and the names of the well-known sets of them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from unicodedata import normalize

from zsic.core.errors import SpecError
from zsic.core.wording import clean_sentence


def resolve_templates(entries: Sequence[str], field: str = "labels.templates") -> tuple[str, ...]:
    """Expand names of template sets, check sentences, and drop repeated ones, in the order given.

    `{label}` in a sentence becomes `{}`.  Raises `SpecError` that names `field`, unless each entry is the
    name of a set or has exactly one place for the label.

    >>> resolve_templates(["simple", "a sketch of a {label}."])
    ('This is a photo of {}.', 'a sketch of a {}.')
    """
    resolved: dict[str, None] = {}
    for entry in entries:
        resolved.update(dict.fromkeys(TEMPLATE_SETS.get(entry) or (_check(entry, field),)))
    return tuple(resolved)


def render(template: str, name: str) -> str:
    """Put a label's name at every `{}` of a template; other braces, the name's too, stay as they are."""
    return normalize("NFC", template.replace("{}", name))


def append_context(template: str, context: str | None) -> str:
    """End a sentence with what kind of thing the label is, as the prompts of the CLIP paper do.

    >>> append_context("a photo of a {}.", "a type of food")
    'a photo of a {}, a type of food.'
    """
    if context is None:
        return template
    ending = template[-1] if template[-1] in _ENDS else ""
    return f"{template.removesuffix(ending)}, {context}{ending}"


def unify_placeholder(sentence: str) -> str:
    """Write `{label}`, the other way to mark the label's place, as `{}`."""
    return sentence.replace("{label}", "{}")


_ENDS = ".!?。！？"  # noqa: RUF001  Japanese and Chinese sentences end so.


def _check(entry: str, field: str) -> str:
    template = unify_placeholder(clean_sentence(entry, field))
    places = template.count("{}")
    if places != 1:
        found = "no {} for the label" if places == 0 else f"{places} places for the label"
        raise SpecError(
            f"{field}: {entry!r} has {found}; use a sentence with one {{}}, such as 'a photo of a {{}}.', "
            f"or the name of a set: {', '.join(TEMPLATE_SETS)}"
        )
    return template


_SIMPLE = ("This is a photo of {}.",)
"""The default of transformers' zero-shot image classification pipeline."""

_SIMPLE_IN = {
    "de": "Das ist ein Foto von {}.",
    "es": "Esta es una foto de {}.",
    "fr": "Ceci est une photo de {}.",
    "it": "Questa è una foto di {}.",
    "ja": "これは{}の写真です。",
    "nl": "Dit is een foto van {}.",
    "pt": "Esta é uma foto de {}.",
    "zh": "这是一张{}的照片。",
}
"""The same in other languages, for models that were trained with them."""

_IMAGENET7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""Chosen from the 80 by forward selection; in the order they were chosen.  A little better than all 80.

From openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb.
"""

_IMAGENET80 = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)
"""The ensemble of the CLIP paper (Radford et al., 2021), in the order of the same notebook."""

TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "simple": _SIMPLE,
        "imagenet7": _IMAGENET7,
        "imagenet80": _IMAGENET80,
        "none": ("{}",),
        **{f"simple-{language}": (template,) for language, template in _SIMPLE_IN.items()},
    }
)
"""Names that may stand for several templates; `none` takes each label as it is."""
