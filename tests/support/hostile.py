"""An output whose every text would be markup, if anybody took it for that."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from support.sample_output import Answer, Lake, plain, write_parquet, write_tar
from zsic.core.spec import SourceSpec
from zsic.evaluate import load_truth
from zsic.report import Report, make_report
from zsic.storage.rows import RawRow

MARKER = "zsicHostile"
"""What hostile texts would make of the page's title, or load, if any of them were taken for markup."""
BREAKOUT = f"\"'></script></style></title><script>document.title='{MARKER}'</script>"
IMAGE = f"<img src=http://127.0.0.1:9/{MARKER} onerror=\"document.title='{MARKER}'\">"
BIDI = "cat\u202egpj.exe\u0007"
LABELS = (f"cat {BREAKOUT}", f"dog {IMAGE}", "bird & {{ 7 * 7 }} &lt;b&gt;", BIDI)


@dataclass(frozen=True)
class Sample:
    """An output, its truth, and a report on both."""

    folder: Path
    truth: Path
    report: Report


def answer(row: RawRow) -> Answer:
    """The first four images get a label each, the fifth the wrong one, the sixth none of them."""
    at = (row.id & 0xFF) % 6
    if at == 5:
        return [(LABELS[0], 0.0), (LABELS[1], 0.0)]
    best = LABELS[at % 4]
    return [(best, 0.9 - at / 10), *((label, 0.01) for label in LABELS if label != best)]


def publish(folder: Path) -> Sample:
    """Names, labels, columns, prompts, versions and details that try to be markup."""
    source = folder / "a <b>&amp;' onclick=x"
    source.mkdir()
    names = [f"{number} {IMAGE.replace('/', '_')}.png" for number in range(6)]
    images = [plain((40 * number, 90, 200 - 30 * number)) for number in range(6)]
    write_tar(source / "s.tar", [*zip(names, images, strict=True), (f"{BREAKOUT.replace('/', '_')}.jpg", b"<html>")])
    captions = [BREAKOUT, IMAGE, "plain", BIDI, None, "x" * 1000]
    write_parquet(source / "p.parquet", images, caption=captions)
    lake = Lake(
        folder / "out",
        SourceSpec(uris=(str(source),), keep_columns=("caption",)),
        answer,
        LABELS,
        keep_columns=("caption",),
        metadata={"model": IMAGE, "prompts": [[f"a photo of {label}"] for label in LABELS], "version": BREAKOUT},
    )
    store = lake.publish()
    (folder / "out" / "_zsic" / "runs").mkdir()
    record = {
        "state": IMAGE,
        "started": "2026-11-27T10:50:18+00:00",
        "ended": "2026-11-27T10:51:05+00:00",
        "reason": BREAKOUT,
        "n_rows": 13,
        "images_per_s": 1.0,
        "seconds": {"flow": 1.0},
        "versions": {BREAKOUT: IMAGE},
    }
    (folder / "out" / "_zsic" / "runs" / "1.json").write_text(json.dumps(record))
    truth = folder / "truth.csv"
    with truth.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label"])
        writer.writerows([name, LABELS[at % 4] if at < 4 else IMAGE] for at, name in enumerate(names))
    return Sample(folder / "out", truth, make_report(store, truth=load_truth(str(truth))))
