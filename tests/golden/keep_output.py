"""Write the output of a release that later releases must go on with: `python tests/golden/keep_output.py NAME`.

Writes `NAME/` with the objects of a bucket.  A bucket, because uris and ETags are the same wherever it is filled
again.  The first increment is published.  The second one was stopped, so it has a plan, staged parts and no snapshot;
one of its parts is taken out, into `NAME/missing/`.  A release runs this once, before its formats can change.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
from draw_source import group, picture, write_shard
from moto.server import ThreadedMotoServer

from zsic.core.errors import IncompleteError
from zsic.core.spec import make_spec
from zsic.pipeline.run import run
from zsic.storage.output import Output

BUCKET = "zsic-kept"
LABELS = "red circle,green square,blue triangle,yellow star,black heart,white ring"


def main(folder: Path) -> None:
    """Run both increments and write what is in the bucket then."""
    os.environ.update(AWS_ACCESS_KEY_ID="any", AWS_SECRET_ACCESS_KEY="any", AWS_DEFAULT_REGION="us-east-1")
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket=BUCKET)

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def classify(**fields: Any) -> None:
        spec = {
            "source": {"uris": f"s3://{BUCKET}/in/", "keep_columns": ["json"]},
            "labels": LABELS,
            "model": "demo",
            "output": {"uri": f"s3://{BUCKET}/out", "embeddings": True, "rows_per_part": 2},
            "store": {"s3_endpoint_url": f"http://{host}:{port}"},
        }
        run(make_spec({**spec, **fields, "execution": {"num_cpus": 2, "block_rows": 2}}))

    shard = folder / "s.tar"
    folder.mkdir(parents=True)
    known = group(61)
    write_shard(shard, [*group(60), *known, (known[0][0], picture(62))])
    put("in/s.tar", shard.read_bytes())
    shard.unlink()
    for number in range(70, 76):
        put(f"in/{number}.jpg", picture(number))
    put("in/page.jpg", b"<!DOCTYPE html>\n<html></html>\n")
    classify()

    put("in/71.jpg", picture(81))  # changed
    client.delete_object(Bucket=BUCKET, Key="in/72.jpg")
    for number in range(90, 93):
        put(f"in/{number}.jpg", picture(number))
    put("in/cut.jpg", picture(93)[:700])
    try:
        with patch.object(Output, "publish", side_effect=KeyboardInterrupt):
            classify(update={"prune": True})
    except IncompleteError:
        pass
    else:
        raise AssertionError("the second increment was published")

    names = [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    staged = [name for name in names if name.startswith("out/_zsic/staged/")]
    assert len(staged) > 1
    for name in names:
        data = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        if name.startswith("out/_zsic/lease/") and data:
            holder = json.loads(data)
            data = json.dumps(holder | dict.fromkeys(("host", "boot", "namespace", "started"), "1")).encode()
        path = folder / ("missing" if name == staged[-1] else "bucket") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
