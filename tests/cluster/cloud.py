"""EC2 as moto mocks it, whose instances are test hosts: a host boots with an empty disk when an instance with its
address runs, and loses power when that is stopped or ended.

So `ray up` with `provider: {type: aws}` goes all the way. Not real: image, GPUs, prices, capacity, permissions, and
security groups (nothing is filtered).
"""

import logging
import threading
from types import TracebackType
from typing import Any

from cluster.hosts import Hosts

REGION, KEY = "us-east-1", "test-hosts"
PORT = 5566


class Cloud:
    """The mocked service, with a network, a key, a security group and instance profiles, for the time of a block."""

    def __init__(self, hosts: Hosts, profiles: list[str]) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._hosts, self._profiles = hosts, profiles
        self._server = ThreadedMotoServer(ip_address=hosts.gateway, port=PORT, verbose=False)
        self._stop = threading.Event()
        self._power = threading.Thread(target=self._follow, daemon=True)
        self._on: dict[str, str] = {}
        self.troubles: list[str] = []
        """What kept a host from following its instance."""
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{hosts.gateway}:{PORT}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """A client of the mocked service."""
        import boto3

        names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
        login = {argument: self.environment[name] for name, argument in names.items()}
        return boto3.client(service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name=REGION, **login)

    def __enter__(self) -> "Cloud":
        self._server.start()
        self.ec2 = self.client("ec2")
        vpc = self.ec2.create_vpc(CidrBlock=self._hosts.network)["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock=self._hosts.network, AvailabilityZone=f"{REGION}a")
        group = self.ec2.create_security_group(GroupName="members", Description="members only", VpcId=vpc)
        self.subnet, self.group = subnet["Subnet"]["SubnetId"], group["GroupId"]
        key = self._hosts.key.with_suffix(".pub").read_bytes()
        self.ec2.import_key_pair(KeyName=KEY, PublicKeyMaterial=key)
        iam = self.client("iam")
        for profile in self._profiles:
            iam.create_instance_profile(InstanceProfileName=profile)
        self._power.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._power.join(60)
        self._server.stop()

    def instances(self, *states: str) -> list[dict[str, Any]]:
        """Instances in these states: pending, running, stopping, stopped, terminated."""
        pages = self.ec2.get_paginator("describe_instances").paginate()
        found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
        return [one for one in found if one["State"]["Name"] in states]

    def interrupt(self, instance: str) -> None:
        """Take a spot instance away, without notice."""
        self.ec2.terminate_instances(InstanceIds=[instance])

    def _follow(self) -> None:
        """Turn hosts on and off as instances come and go."""
        index = {host.address: number for number, host in enumerate(self._hosts.all)}
        kept: set[str] = set()
        while not self._stop.wait(1):
            try:
                wanted = {one["PrivateIpAddress"]: one["InstanceId"] for one in self.instances("pending", "running")}
                stopped = {one["InstanceId"] for one in self.instances("stopped")}
                for address in [address for address in self._on if wanted.get(address) != self._on[address]]:
                    if self._on[address] in stopped:
                        kept.add(self._on[address])  # a stopped instance keeps its disk
                    self._hosts.unplug(index[address])
                    self._hosts.kill(index[address])
                    del self._on[address]
                for address in wanted.keys() - self._on.keys():
                    self._on[address] = wanted[address]
                    self._hosts.start(index[address], fresh=wanted[address] not in kept)
            except Exception as error:  # told by the test, not lost in a thread
                self.troubles.append(f"{type(error).__name__}: {error}")
