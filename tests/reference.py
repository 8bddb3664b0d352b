"""What AWS and botocore say, for tests that are held against it."""

from __future__ import annotations

import logging

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lambda_ext import exceptions

OPERATIONS = {
    "secretsmanager": ("GetSecretValue", "BatchGetSecretValue"),
    "ssm": ("GetParameter", "GetParameters", "GetParametersByPath"),
    "appconfigdata": ("StartConfigurationSession", "GetLatestConfiguration"),
}
THROTTLED = exceptions.ThrottledError
DENIED = exceptions.AccessDeniedError
MISSING = exceptions.NotFoundError
OTHER = exceptions.SourceError
EXPECTED = {  # every error in the service models of the operations that we use
    "BadRequestException": (OTHER, False),
    "DecryptionFailure": (DENIED, False),
    "InternalServerError": (OTHER, True),
    "InternalServerException": (OTHER, True),
    "InternalServiceError": (OTHER, True),
    "InvalidFilterKey": (OTHER, False),
    "InvalidFilterOption": (OTHER, False),
    "InvalidFilterValue": (OTHER, False),
    "InvalidKeyId": (DENIED, False),
    "InvalidNextToken": (OTHER, False),
    "InvalidNextTokenException": (OTHER, False),
    "InvalidParameterException": (OTHER, False),
    "InvalidRequestException": (OTHER, False),
    "ParameterNotFound": (MISSING, False),
    "ParameterVersionNotFound": (MISSING, False),
    "ResourceNotFoundException": (MISSING, False),
    "ThrottlingException": (THROTTLED, True),
}
COMMON = {  # and what any service may answer
    "AccessDeniedException": (DENIED, False),
    "ExpiredTokenException": (DENIED, False),
    "InvalidSignatureException": (DENIED, False),
    "RequestLimitExceeded": (THROTTLED, True),
    "RequestTimeout": (exceptions.SourceTimeoutError, True),
    "ServiceUnavailable": (OTHER, True),
    "UnrecognizedClientException": (DENIED, False),
    "ValidationException": (OTHER, False),
}


def botocore_signature(method, url, headers, body, keys, region, service):
    """Return the header Authorization as botocore makes it."""
    logging.getLogger("botocore").setLevel(logging.INFO)
    auth = SigV4Auth(Credentials(keys.access, keys.secret), service, region)
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    request.context["timestamp"] = headers["x-amz-date"]
    text = auth.string_to_sign(request, auth.canonical_request(request))
    signature = auth.signature(text, request)
    signed = auth.signed_headers(auth.headers_to_sign(request))
    return (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)},"
        f" SignedHeaders={signed}, Signature={signature}"
    )
