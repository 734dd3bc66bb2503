"""Peers of zsic: the same pictures classified by others, and Ray with nothing to do.

    python benchmarks/peers.py transformers|ray|idle-ray SOURCE OUT

Imports nothing before it is asked to: how long a peer takes to start is part of what is measured.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 32


def batched(items: Iterable[Any], n: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, n)):
        yield batch


def ray_data(source: Path, out: Path) -> dict[str, Any]:
    """As in Ray's documentation of batch inference; reservations so that all stages fit the machine."""
    import ray
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    from zsic.core.labels import load_labels
    from zsic.core.spec import LabelsSpec
    from zsic.demo import MODEL_PATH
    from zsic.demo.label_sets import labels

    label_prompts = [prompt for (prompt,) in load_labels(LabelsSpec(names=tuple(labels()))).prompts()]
    cores = len(os.sched_getaffinity(0))

    class Processor:
        def __init__(self) -> None:
            self.processor = AutoImageProcessor.from_pretrained(MODEL_PATH)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            pixels = self.processor(images=list(batch["image"]), return_tensors="np")["pixel_values"]
            return {"path": batch["path"], "pixel_values": pixels}

    class Model:
        def __init__(self) -> None:
            torch.set_num_threads(cores)
            self.model = CLIPModel.from_pretrained(MODEL_PATH).eval()
            tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
            with torch.inference_mode():
                text = self.model.get_text_features(**tokenizer(label_prompts, padding=True, return_tensors="pt"))
                self.text = torch.nn.functional.normalize(text.pooler_output, dim=-1)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            with torch.inference_mode():
                rows = self.model.get_image_features(pixel_values=torch.from_numpy(batch["pixel_values"].copy()))
                rows = torch.nn.functional.normalize(rows.pooler_output, dim=-1)
                scores = (rows @ self.text.T * self.model.logit_scale.exp()).softmax(dim=1)
                top = scores.topk(5, dim=1)
            names = labels()
            return {
                "path": batch["path"],
                "label": [names[index] for index in top.indices[:, 0].tolist()],
                "score": top.values[:, 0].numpy(),
            }

    with _ray():
        (
            ray.data.read_images(str(source), mode="RGB", include_paths=True, ray_remote_args={"num_cpus": 0.5})
            .map_batches(Processor, batch_size=BATCH, concurrency=1, num_cpus=0.5)
            .map_batches(Model, batch_size=BATCH, concurrency=1, num_cpus=0.5)
            .write_parquet(str(out), ray_remote_args={"num_cpus": 0.25})
        )
    return {}


def transformers_pipeline(source: Path) -> Iterator[tuple[str, str, float]]:
    import transformers
    from PIL import Image

    from zsic.demo import MODEL_PATH
    from zsic.demo.label_sets import labels

    pipe = transformers.pipeline("zero-shot-image-classification", model=str(MODEL_PATH), device="cpu")
    for paths in batched(sorted(source.iterdir()), BATCH):
        images = [Image.open(path) for path in paths]
        for path, answer in zip(paths, pipe(images, candidate_labels=labels(), batch_size=BATCH), strict=True):
            yield f"{path.stem}/{path.name}", answer[0]["label"], answer[0]["score"]


def idle_ray(source: Path, out: Path) -> dict[str, Any]:
    """The least that a job on Ray is: a start, names of files through a task and an actor that do nothing, a table."""
    import ray

    class Nothing:
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return batch

    with _ray() as cores:
        (
            ray.data.from_items(
                [{"path": str(path)} for path in sorted(source.iterdir())], override_num_blocks=2 * cores
            )
            .map_batches(lambda batch: batch, batch_size=BATCH, num_cpus=0.5)
            .map_batches(Nothing, batch_size=BATCH, concurrency=1, num_cpus=0.5)
            .write_parquet(str(out), ray_remote_args={"num_cpus": 0.25})
        )
    return {}


@contextmanager
def _ray() -> Iterator[int]:
    """Ray on this machine, as small as its options make it; gives the number of cores."""
    import ray

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield cores
        ray.shutdown()


def main() -> None:
    peer, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if peer == "transformers":
        answers = list(transformers_pipeline(source))
        print(json.dumps({"n": len(answers), "answers": {key: label for key, label, _ in answers}}))
    elif peer == "ray":
        print(json.dumps(ray_data(source, out)))
    else:
        print(json.dumps(idle_ray(source, out)))


if __name__ == "__main__":
    main()
