"""`ray up cluster/aws.yaml` without a cloud: Ray's own code starts its nodes at an EC2 that is made up."""

from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

AWS = Path(__file__).parents[2] / "cluster" / "aws.yaml"
REGION = "us-west-2"


def made_up_account() -> dict[str, str]:
    """What the README has its reader make, in place of the placeholders."""
    ec2, iam = boto3.client("ec2", region_name=REGION), boto3.client("iam")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    profiles = {}
    for name in ("HEAD", "WORKER"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        profile = iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        profiles[f"CHANGE-ME-{name}-PROFILE"] = profile
    return profiles | {
        "CHANGE-ME-REGION": REGION,
        "CHANGE-ME-IMAGE": "registry/zsic:1",
        "CHANGE-ME-AMI": ec2.describe_images()["Images"][0]["ImageId"],
        "CHANGE-ME-SECURITY-GROUP": ec2.create_security_group(GroupName="zsic", Description="zsic", VpcId=vpc)[
            "GroupId"
        ],
    }


def test_nodes_start_with_our_group_and_profiles_and_guard_their_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Ray makes a key pair, and keeps it in ~/.ssh; the token is to be there before.
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder, name in ((".ssh", "config"), (".ray", "auth_token")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)

    with mock_aws():
        account = made_up_account()
        text = AWS.read_text(encoding="utf-8")
        for placeholder, value in account.items():
            text = text.replace(placeholder, value)
        assert "CHANGE-ME" not in text
        config: dict[str, Any] = prepare_config(yaml.safe_load(text))
        validate_config(config)
        config = bootstrap_aws(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name, node_type in config["available_node_types"].items():
            provider.create_node(node_type["node_config"], {"ray-user-node-type": name}, 1)

        ec2 = boto3.client("ec2", region_name=REGION)
        found = [each for group in ec2.describe_instances()["Reservations"] for each in group["Instances"]]
        nodes = {tag["Value"]: each for each in found for tag in each["Tags"] if tag["Key"] == "ray-user-node-type"}
        assert {name: node["InstanceType"] for name, node in nodes.items()} == {
            "head": "m7i.xlarge",
            "gpu": "g6.4xlarge",
            "cpu": "c7i.4xlarge",
        }
        for name, node in nodes.items():
            # The head's profile may end only what has this tag.
            assert {"Key": "ray-cluster-name", "Value": "zsic"} in node["Tags"]
            assert [group["GroupId"] for group in node["SecurityGroups"]] == [account["CHANGE-ME-SECURITY-GROUP"]]
            assert node.get("InstanceLifecycle") == (None if name == "head" else "spot")
            assert node["MetadataOptions"]["HttpTokens"] == "required"
            assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
            profile = "HEAD" if name == "head" else "WORKER"
            assert node["IamInstanceProfile"]["Arn"] == account[f"CHANGE-ME-{profile}-PROFILE"]
        assert {role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]} == {"HEAD", "WORKER"}
        # Nothing was opened to anybody.
        (group,) = ec2.describe_security_groups(GroupNames=["zsic"])["SecurityGroups"]
        assert group["IpPermissions"] == []
