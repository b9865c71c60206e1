"""An S3 API server (moto) that checks signatures. Runs in an environment of its own, see requirements.in.

Prints one line of JSON with endpoint, key and secret, and serves until its standard input ends.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3  # type: ignore[import-not-found]
from moto import settings  # type: ignore[import-not-found]
from moto.server import ThreadedMotoServer  # type: ignore[import-not-found]

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


def main() -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    key = make_user(endpoint)
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0  # from now on nobody gets in without credentials
    print(json.dumps({"endpoint": endpoint, **key}), flush=True)
    sys.stdin.read()
    server.stop()


def make_user(endpoint: str) -> dict[str, str]:
    """A user who may do all with buckets."""
    anybody: dict[str, Any] = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url=endpoint, **anybody)
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    return {"key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}


if __name__ == "__main__":
    main()
