"""The server that misbehaves, for the tests that rely on it."""

from __future__ import annotations

from wire import Wire, cut, refusing

from lambda_ext.aws import light


def test_faults_lie_between_a_client_and_any_server(server, monkeypatch):
    """With an upstream the server passes on what comes, unless it is told not to."""
    with Wire(upstream=server.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        between.faults += [cut(30), refusing("ThrottlingException")]
        way = light.Light("secretsmanager")

        answer = way.call("GetSecretValue", {"SecretId": "db"})

        assert "value of db" == answer["SecretString"]
        assert (3, 2) == (len(between.requests), len(server.requests))
        way.close()
