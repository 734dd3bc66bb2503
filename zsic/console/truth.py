"""`--truth` and `--label-column`: where the labels of images are found."""

from typing import TYPE_CHECKING

from zsic.console.inspect import filesystem_of, refuse_credentials
from zsic.core.errors import SpecError

if TYPE_CHECKING:
    from zsic.evaluate.truth import Truth


def find_truth(truth: str, label_column: str | None, s3_endpoint_url: str | None) -> "Truth":
    """Read what `--truth` names.  Raises `SpecError` if it has no labels, or no such column."""
    from zsic.evaluate.truth import COLUMN_PREFIX, FOLDER, load_truth

    refuse_credentials(truth=truth)
    if label_column is not None and (truth == FOLDER or truth.startswith(COLUMN_PREFIX)):
        raise SpecError(f"--label-column is for a truth that is a table, and --truth is {truth}")
    return load_truth(truth, label_column=label_column or "label", filesystem=filesystem_of(truth, s3_endpoint_url))
