"""What a Ray cluster asks its autoscaler for."""

import json


def requested(address: str) -> list[dict[str, float]]:
    """The bundles of resources that an autoscaler would find requested; none to begin with."""
    from ray._raylet import GcsClient
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL

    found = GcsClient(address=address).internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL, None)
    return json.loads(found) if found else []
