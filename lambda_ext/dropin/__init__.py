"""The drop-in boto3 client: `cached`, `patch`, `client`; services secretsmanager, ssm."""
