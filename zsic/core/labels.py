"""What images are sorted into: labels, and the prompts that describe each of them to the text tower."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from zsic.core.errors import SpecError
from zsic.core.fingerprint import canonical, six_digits
from zsic.core.label_file import LabelFile, Step, name_labels, read_label_file
from zsic.core.label_form import LabelForm
from zsic.core.rules import BACK_OFF, NO_RULES, Rules
from zsic.core.spec import LabelsSpec
from zsic.core.templates import append_context, render, resolve_templates, unify_placeholder
from zsic.core.wording import clean, clean_sentence

DEFAULT_TEMPLATES = ("simple",)
DEFAULT_NEGATIVE = ("This is a photo of something else.",)
"""What a picture is compared with to tell whether it shows a label, where a set gives nothing else."""

_SHARES_OFF = 1e-3
"""How far from one the priors of a set may add up to."""


@dataclass(frozen=True, slots=True)
class Label:
    """One answer."""

    name: str
    """As it stands in the output."""
    prompts: tuple[str, ...] | None = None
    """Own sentences, used instead of the templates; `{}` in them stands for the name."""
    synonyms: tuple[str, ...] = ()
    """Other names, put into the same sentences."""
    descriptions: tuple[str, ...] = ()
    """Whole sentences beside the templates."""
    context: str | None = None
    """What kind of thing it is; ends each templated sentence."""
    templates: tuple[str, ...] | None = None
    """Its language's, where the set has several."""
    negative: tuple[str, ...] = ()
    """Sentences for pictures without it; the set's if there are none."""

    def render(self, templates: Sequence[str]) -> tuple[str, ...]:
        """Its prompts, each once: the sentences with each of its names, then the descriptions."""
        sentences = self.prompts
        if sentences is None:
            sentences = tuple(append_context(each, self.context) for each in self.templates or templates)
        names = (self.name, *self.synonyms)
        prompts = [render(sentence, name) for name in names for sentence in sentences]
        return tuple(dict.fromkeys([*prompts, *(render(text, self.name) for text in self.descriptions)]))


@dataclass(frozen=True)
class LabelSet:
    """The labels of one question, in the order that settles ties.

    `load_labels` makes them, and sees to it that names are distinct and every label has a prompt.
    """

    labels: tuple[Label, ...]
    """Those with prompts; what they are children of is in the rules."""
    templates: tuple[str, ...]
    """Sentences with one `{}`; no names of sets any more."""
    name: str | None = None
    rules: Rules = NO_RULES
    negative: tuple[str, ...] = DEFAULT_NEGATIVE
    """With `mode: multi` and a softmax model, of the labels that have none of their own."""
    prior_C: tuple[float, ...] = ()
    """The share of each label among the images; empty where none is stated."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as they stand in the output."""
        return tuple(label.name for label in self.labels)

    def prompts(self) -> tuple[tuple[str, ...], ...]:
        """Render the prompts of each label, in label order; a prompt appears once in its label."""
        return tuple(label.render(self.templates) for label in self.labels)

    def negatives(self) -> tuple[tuple[str, ...], ...]:
        """Render the sentences for pictures without each label; none unless the mode is `multi`."""
        if self.rules.mode != "multi":
            return ()
        return tuple(
            tuple(dict.fromkeys(render(text, label.name) for text in label.negative or self.negative))
            for label in self.labels
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names and rendered prompts in order, and of the rules: what was asked, however it was written."""
        return digest_question(
            self.names,
            self.prompts(),
            {"rules": self.rules.to_dict(), "negatives": self.negatives(), "prior": self.prior_C},
        )


def digest_question(names: Sequence[str], prompts: Sequence[Sequence[str]], extras: Mapping[str, object]) -> str:
    """SHA-256 of what is asked; extras that are empty say nothing."""
    asked: dict[str, object] = {"names": names, "prompts": prompts}
    return hashlib.sha256(canonical(asked | {name: each for name, each in extras.items() if each})).hexdigest()


def load_labels(spec: LabelsSpec, field: str = "labels") -> LabelSet:
    """Read the labels that a spec names, from its file or its list, in their order.

    Templates of the spec take precedence over the file's, and those over `simple`.  Raises `SpecError` that
    names the field (`labels`, or which of several), or the file, line and label.
    """
    given = [f"{field}.{name}" for name in ("path", "names", "head") if getattr(spec, name)]
    if len(given) > 1:
        raise SpecError(f"{' and '.join(given)} are both given; use one of them")
    if spec.head is not None:
        raise SpecError(f"{field}.head: {spec.head} is compiled already; give the label file here")
    file = name_labels(spec.names, f"{field}.names") if spec.path is None else read_label_file(spec.path)
    return _Reading(file, spec).label_set()


class _Reading:
    """One label file on its way to a label set."""

    def __init__(self, file: LabelFile, spec: LabelsSpec) -> None:
        self._file = file
        self._form = file.form
        self._spec = spec
        self._places: dict[str, str] = {}
        """Where each name stands."""
        self._templates, self._by_language = self._resolve_templates()

    def label_set(self) -> LabelSet:
        form = self._form
        leaves = list(self._walk(form.labels, ("labels",), ()))
        if not leaves:
            raise SpecError(
                f"{self._file.where()} holds no label; give at least one, such as `cat`, or the path of a label file"
            )
        labels = [label for label, _, _ in leaves]
        background = self._background()
        forms = [leaf for _, leaf, _ in leaves]
        return LabelSet(
            labels=(*labels, *background),
            templates=self._templates,
            name=self._spec.name or form.name,
            rules=self._rules(forms, [parents for _, _, parents in leaves], len(background)),
            negative=self._sentences(form.negative, "negative", "the set") or DEFAULT_NEGATIVE,
            prior_C=self._priors(forms, len(background)),
        )

    def _resolve_templates(self) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """The templates of the set, and those by language."""
        form, where = self._form, f"{self._file.where('templates')}: templates"
        if self._spec.templates:
            return resolve_templates(self._spec.templates), {}
        if not isinstance(form.templates, dict):
            return resolve_templates(form.templates or DEFAULT_TEMPLATES, where), {}
        by_language = {
            language: resolve_templates(entries, f"{self._file.where('templates', language)}: templates.{language}")
            for language, entries in form.templates.items()
        }
        if form.language is None:
            if len(by_language) != 1:
                raise SpecError(
                    f"{where}: they are given by language ({', '.join(by_language)}), so the set needs a `language` "
                    "for the labels that name none"
                )
            return next(iter(by_language.values())), by_language
        return self._in_language(form.language, by_language, self._file.where("language")), by_language

    @staticmethod
    def _in_language(language: str, known: dict[str, tuple[str, ...]], where: str) -> tuple[str, ...]:
        if language not in known:
            raise SpecError(f"{where}: there are no templates for the language {language!r}; add them to templates")
        return known[language]

    def _walk(
        self, forms: Sequence[LabelForm], path: tuple[Step, ...], parents: tuple[str, ...]
    ) -> Iterator[tuple[Label, LabelForm, tuple[str, ...]]]:
        """The labels with prompts, as they stand in the file, with what they are children of."""
        for i, form in enumerate(forms):
            where = self._file.where(*path, i)
            name = self._claim(form.name, where)
            if not form.children:
                yield self._label(form, name, (*path, i)), form, parents
                continue
            own = [each for each in form.model_fields_set if each not in ("name", "children")]
            if own:
                raise SpecError(
                    f"{where}: label {name!r} has children, whose scores make up its own, and so no "
                    f"{', '.join(sorted(own))}; give them to the children"
                )
            yield from self._walk(form.children, (*path, i, "children"), (*parents, name))

    def _claim(self, written: str, where: str) -> str:
        name = clean(written, where)
        if not name:
            raise SpecError(f"{where}: the label is empty; name it or remove it")
        if name in self._places:
            raise SpecError(f"{where}: label {name!r} is there already ({self._places[name]}); remove one of the two")
        self._places[name] = where
        return name

    def _label(self, form: LabelForm, name: str, path: tuple[Step, ...]) -> Label:
        where = self._file.where(*path)
        whose = f"label {name!r}"
        prompts = None
        if form.prompts is not None:
            prompts = self._sentences(form.prompts, "prompt", whose, where)
            if not prompts:
                raise SpecError(f"{where}: {whose} has an empty list of prompts; fill it or remove it")
        if form.language is not None and not self._spec.templates and not self._by_language:
            raise SpecError(
                f"{where}: {whose} names a language, and the set has no templates by language; write templates as a "
                "mapping, such as {de: ['Das ist ein Foto von {}.']}"
            )
        templates = None
        if form.language is not None and self._by_language:
            templates = self._in_language(form.language, self._by_language, self._file.where(*path, "language"))
        synonyms = tuple(dict.fromkeys(clean(text, f"{where}: a synonym of {whose}") for text in form.synonyms))
        if not all(synonyms):
            raise SpecError(f"{where}: a synonym of {whose} is empty; write it or remove it")
        if prompts is not None and form.context is not None:
            raise SpecError(
                f"{where}: {whose} has prompts of its own, which a context does not end; write it into them"
            )
        context = form.context if form.context is not None else self._form.context
        return Label(
            name,
            prompts,
            tuple(each for each in synonyms if each != name),
            self._sentences(form.descriptions, "description", whose, where),
            clean_sentence(context, f"{where}: the context of {whose}") or None if context is not None else None,
            templates,
            self._sentences(form.negative, "negative", whose, where),
        )

    def _sentences(self, texts: Sequence[str], what: str, whose: str, where: str | None = None) -> tuple[str, ...]:
        where = f"{where or self._file.where(what)}: a {what} of {whose}"
        sentences = [unify_placeholder(clean_sentence(text, where)) for text in texts]
        if not all(sentences):
            raise SpecError(f"{where} is empty; write it or remove it")
        return tuple(dict.fromkeys(sentences))

    def _background(self) -> list[Label]:
        reject = self._form.reject
        where = self._file.where("reject", "background")
        return [Label(self._claim(name, where)) for name in (reject.background if reject else ())]

    def _rules(self, forms: Sequence[LabelForm], parents_C: Sequence[tuple[str, ...]], n_background: int) -> Rules:
        form, reject = self._form, self._form.reject
        has_tree = any(parents_C)
        if form.mode == "multi" and has_tree:
            raise SpecError(
                f"{self._file.where('mode')}: mode is multi, and labels have children; an image with several labels "
                "has no one place in a tree: leave one of them out"
            )
        if form.mode == "multi" and reject is not None:
            raise SpecError(
                f"{self._file.where('reject')}: mode is multi, in which each label has its `threshold`; remove reject"
            )
        if form.mode == "single" and (form.negative or any(leaf.negative for leaf in forms)):
            raise SpecError(
                f"{self._file.where('negative')}: negative is for mode: multi, where labels do not compete; set the "
                "mode, or use reject.background"
            )
        if form.back_off is not None and not has_tree:
            raise SpecError(f"{self._file.where('back_off')}: back_off is given, and no label has children")
        thresholds = [leaf.threshold for leaf in forms]
        return Rules(
            mode=form.mode,
            threshold_C=(*thresholds, *[None] * n_background) if any(t is not None for t in thresholds) else (),
            n_answers=len(forms) if n_background else None,
            min_score=reject.min_score if reject else None,
            min_similarity=reject.min_similarity if reject else None,
            min_margin=reject.min_margin if reject else None,
            parents_C=(*parents_C, *[()] * n_background) if has_tree else (),
            back_off=(form.back_off or BACK_OFF) if has_tree else None,
        )

    def _priors(self, forms: Sequence[LabelForm], n_background: int) -> tuple[float, ...]:
        stated = [leaf.prior for leaf in forms if leaf.prior is not None]
        if not stated:
            return ()
        if len(stated) < len(forms):
            first = next(leaf.name for leaf in forms if leaf.prior is None)
            raise SpecError(
                f"{self._file.where('labels')}: {len(stated)} of {len(forms)} labels have a prior, and {first!r} has "
                "none; give all of them one, or none"
            )
        if n_background or self._form.mode == "multi":
            other = "mode: multi" if self._form.mode == "multi" else "reject.background"
            raise SpecError(
                f"{self._file.where('labels')}: priors are the shares of labels that exclude one another and leave "
                f"nothing out, which does not go with {other}"
            )
        if abs(sum(stated) - 1) > _SHARES_OFF:
            raise SpecError(f"{self._file.where('labels')}: the priors add up to {sum(stated):g}; they have to make 1")
        return tuple(map(six_digits, stated))
