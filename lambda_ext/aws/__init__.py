"""The transports to AWS: a light client of our own, and boto3."""
