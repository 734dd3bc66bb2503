"""What may be written in a label file: the fields of a label set and of a label, and their JSON schema for editors."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])]
Share = Annotated[float, Field(ge=0, le=1)]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class LabelForm(_Form):
    """One label."""

    name: str
    """As it stands in the output."""
    prompts: Texts | None = None
    """Own sentences instead of the templates; `{}` in them stands for the name."""
    synonyms: Texts = ()
    """Other names, put into the same sentences as the name itself."""
    descriptions: Texts = ()
    """Whole sentences beside the templates: what one sees; `{}` stands for the name."""
    context: str | None = None
    """What kind of thing it is, such as `a type of food`: ends each templated sentence."""
    language: str | None = None
    """Which of the set's templates by language are this label's."""
    negative: Texts = ()
    """With `mode: multi` and a softmax model: sentences for pictures without it, in place of the set's."""
    prior: Annotated[float, Field(gt=0, le=1)] | None = None
    """Its share among the images; all labels have one, or none has."""
    threshold: Share | None = None
    """The score from which on it is an answer."""
    children: tuple["LabelForm", ...] = ()
    """The labels that it is made of.  It has no prompts of its own: its score is what theirs add up to."""


class RejectForm(_Form):
    """When an image gets no label of the set: each condition that is given has to be met."""

    background: Texts = ()
    """Names for what else may be seen; an image that is answered best by one of them has no label."""
    min_score: Share | None = None
    """The least score of an answer."""
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The least cosine of an answer."""
    min_margin: Share | None = None
    """The least distance of the best score from the second."""


class LabelSetForm(_Form):
    """A label set: the labels of one question, and how it is answered."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """What the set is called where a job has several; ends the names of its columns."""
    mode: Literal["single", "multi"] = "single"
    """`single` gives an image one label; `multi` each that passes its threshold."""
    templates: Texts | dict[str, Texts] = ()
    """Sentences with `{}` for the label, or names of template sets; or these by language."""
    language: str | None = None
    """The language of labels that name none, where the templates are given by language."""
    context: str | None = None
    """The context of labels that have none of their own."""
    negative: Texts = ()
    """With `mode: multi` and a softmax model: sentences for pictures without a label; `{}` stands for the name."""
    reject: RejectForm | None = None
    """When an image gets no label."""
    back_off: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `children`: the score that a child needs, or else its parent is the answer; 0.5 if not given."""
    labels: tuple[LabelForm, ...]
    """The labels, in the order that settles ties."""


FIELDS_OF_A_SET = tuple(LabelSetForm.model_fields)


def validate(fields: dict[str, Any]) -> LabelSetForm | list[ErrorDetails]:
    """The form of a label set; or what is wrong with it."""
    try:
        return LabelSetForm.model_validate(fields)
    except ValidationError as error:
        return error.errors()


def json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of label files in YAML and JSON, with the short forms that they may have."""
    made = LabelSetForm.model_json_schema()
    definitions = made.pop("$defs")
    label, a_set = definitions["LabelForm"], made
    texts = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    without_name = {
        **label,
        "properties": {name: field for name, field in label["properties"].items() if name != "name"},
        "required": [],
        "description": "A label whose name is its key.",
    }
    prompt = {**label["properties"]["prompts"], "description": "The same as prompts."}
    for form in (label, without_name):
        form["properties"] = {**form["properties"], "prompt": prompt}
    label["properties"]["label"] = {"type": "string", "description": "The same as name."}
    label["required"] = []
    label["oneOf"] = [{"required": ["name"]}, {"required": ["label"]}]
    labels = {
        "anyOf": [
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/LabelForm"}]}},
            {
                "type": "object",
                "additionalProperties": {"anyOf": [*texts["anyOf"], {"$ref": "#/$defs/NamedLabelForm"}]},
            },
        ]
    }
    label["properties"]["children"] = {**labels, "description": label["properties"]["children"]["description"]}
    without_name["properties"]["children"] = label["properties"]["children"]
    a_set["properties"]["labels"] = {**labels, "description": a_set["properties"]["labels"]["description"]}
    not_a_set = {"not": {"type": "object", "required": ["labels"]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A label file of zsic",
        "anyOf": [{"$ref": "#/$defs/LabelSetForm"}, {**labels, **not_a_set}],
        "$defs": {**definitions, "NamedLabelForm": without_name, "LabelSetForm": a_set},
    }
