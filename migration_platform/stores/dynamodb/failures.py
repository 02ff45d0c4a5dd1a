"""What DynamoDB, the line to it and the SDK refuse, as this package's errors: one sentence each.

None of them shows a secret: not the session's token, which a refused signature is answered with,
nor what could not be parsed, which may be a password.
"""

import json
import os

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from urllib3 import exceptions as http_errors

from migration_platform.errors import (
    AttemptError,
    MigrationError,
    PermanentError,
    PreflightError,
    RefusedValuesError,
)

# What the service answers, sorted once; see "Error handling with DynamoDB" in its guide.
_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "SlowDown",
    }
)
_PASSING = frozenset(
    {
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "LimitExceededException",  # too many tables are being made at once
        "ReplicatedWriteConflictException",
        "RequestTimeout",
        "RequestTimeoutException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_REFUSED_VALUES = frozenset(
    {
        "ItemCollectionSizeLimitExceededException",
        "RequestEntityTooLarge",
        "SerializationException",
        "ValidationException",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_USER = frozenset(
    {
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SubscriptionRequiredException",
        "UnrecognizedClientException",
    }
)
_BAD_SIGNATURE = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
HOW_TO_SIGN_IN = (
    "set the store's profile, or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_EXPIRED_SESSION = f"the AWS session has expired; sign in again, or {HOW_TO_SIGN_IN}"
NO_PROXY_URL = (
    "the proxy that HTTPS_PROXY or HTTP_PROXY names is no URL; give it as http(s)://host:port, "
    "special characters of its user and password percent-encoded"
)
CREDENTIALS_FAILED = (BotoCoreError, ClientError, ValueError, RuntimeError)
"""What the SDK raises where it finds, renews or assumes; see `explain_credentials`."""
_NO_SDK_SETTING = "an AWS setting is not valid; check the variables AWS_* and ~/.aws/config"


class ThrottledError(AttemptError):
    """The table or the account takes less at the moment."""


class ConditionFailedError(PermanentError):
    """A conditional write found its condition false; nothing was written."""


class MissingTableError(PermanentError):
    """There is no such table in this region and account."""


class ExpiredError(PermanentError):
    """The session that the credentials belong to has ended."""


class NotPermittedError(PermanentError):
    """The service knows the user, who may not do this."""


def refuse_user(endpoint_url: str | None) -> None:
    """Refuse an endpoint that holds a user or a password: messages show it.

    Raises:
        PreflightError: it does.
    """
    # A slash in a password hides it from `urlsplit`; no endpoint has an @ anywhere.
    if endpoint_url and "@" in endpoint_url:
        raise PreflightError(
            "endpoint_url holds a user or a password; give it as http(s)://host:port"
        )


def explain_line(
    error: http_errors.HTTPError, where: str, read_timeout_seconds: float
) -> MigrationError:
    """Say what is wrong with the line; urllib3's own words show addresses of objects."""
    if isinstance(error, http_errors.SSLError):
        reason = " ".join(str(error).split())
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return PermanentError(
                f"the certificate of {where} is not trusted; name its authority's file in "
                "AWS_CA_BUNDLE"
            )
        if "WRONG_VERSION_NUMBER" in reason:
            return PermanentError(f"{where} speaks no TLS; its endpoint_url is http://")
        return AttemptError(f"the TLS connection to {where} broke")
    if isinstance(error, http_errors.ProxyError):
        return AttemptError(f"the proxy for {where} cannot be reached; see HTTPS_PROXY")
    if isinstance(error, http_errors.NameResolutionError):
        return AttemptError(
            f"the name of {where} is not known; check the store's region and endpoint_url"
        )
    if isinstance(error, http_errors.NewConnectionError | http_errors.ConnectTimeoutError):
        return AttemptError(
            f"{where} cannot be reached; check the store's region and endpoint_url, and that "
            "the service is up"
        )
    if isinstance(error, http_errors.ReadTimeoutError):
        return AttemptError(f"{where} did not answer within {read_timeout_seconds:g} s")
    return AttemptError(f"the connection to {where} broke")


def explain_answer(status: int, content: bytes, where: str, region: str) -> MigrationError:
    """Say what an answer that is no success means; `where` is the endpoint's URL."""
    try:
        answer = json.loads(content)
        code = answer["__type"].rpartition("#")[2]
    except (ValueError, TypeError, KeyError, AttributeError):
        if status >= 500:
            return AttemptError(f"{where} answered HTTP {status}")
        if status == 413:
            return RefusedValuesError("the server refused the request: it is too large")
        return PermanentError(
            f"{where} answered HTTP {status} and is no DynamoDB endpoint; check the store's "
            "endpoint_url"
        )
    message = " ".join(str(answer.get("message") or answer.get("Message") or "").split())
    said = f"the server said: {code}: {message}" if message else f"the server said: {code}"
    if code in _THROTTLES:
        return ThrottledError(said)
    if code == "ConditionalCheckFailedException":
        return ConditionFailedError(said)
    if code == "ResourceNotFoundException":
        return MissingTableError(
            f"the table does not exist in region {region} at {where} for this account; check the "
            "table's name and the store's region"
        )
    if code in _EXPIRED:
        return ExpiredError(_EXPIRED_SESSION)
    if code in _UNKNOWN_USER:
        return PermanentError(
            f"{where} does not accept these credentials ({code}); {HOW_TO_SIGN_IN}, and check that "
            f"region {region} is enabled for the account"
        )
    if code in _BAD_SIGNATURE:
        return PermanentError(_explain_signature(message, region))
    if code in ("AccessDeniedException", "AccessDenied"):
        return NotPermittedError(f"the user lacks a permission: {message or code}")
    if code in _REFUSED_VALUES:
        return RefusedValuesError(said)
    if code in _PASSING or status >= 500:
        return AttemptError(said)
    return PermanentError(said)


def explain_setup(endpoint_url: str | None, profile: str | None, error: Exception) -> str:
    """Say what the SDK's chain did not find; its own words are kept where they name the place.

    A ValueError's are not: they quote whatever could not be parsed.
    """
    if isinstance(error, NoRegionError):
        return "no AWS region is known; set the store's region, or AWS_DEFAULT_REGION"
    if isinstance(error, ProfileNotFound):
        name = profile or os.environ.get("AWS_PROFILE")
        return f"there is no AWS profile {name!r}; add it to ~/.aws/config, or name another one"
    if isinstance(error, PartialCredentialsError):
        return f"the AWS credentials lack a part; {HOW_TO_SIGN_IN}"
    if not isinstance(error, BotoCoreError):
        if not any(word in str(error).lower() for word in ("endpoint", "port")):
            return _NO_SDK_SETTING
        what = repr(endpoint_url) if endpoint_url else "no URL"
        return f"endpoint_url is {what}; give it as http(s)://host:port"
    return f"cannot set up DynamoDB: {' '.join(str(error).split())}"


def explain_credentials(role_arn: str | None, error: Exception) -> MigrationError:
    """Say why a role could not be assumed, or a session not be renewed."""
    if isinstance(error, RuntimeError):
        # So botocore says that what it renewed has expired already; it has no class for that.
        if "still expired" not in str(error):
            raise error
        return ExpiredError(_EXPIRED_SESSION)
    what = f"assume the role {role_arn}" if role_arn else "get AWS credentials"
    if isinstance(error, ClientError):
        told = error.response.get("Error", {})
        code = told.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = AttemptError if status >= 500 or code in _THROTTLES else PermanentError
        # What a bad signature is told shows the session's token.
        said = code if code in _BAD_SIGNATURE else f"{code}: {told.get('Message', '')}"
        return kind(f"cannot {what}: {said}")
    if not isinstance(error, BotoCoreError):
        return PermanentError(f"cannot {what}: {_NO_SDK_SETTING}")
    # The class itself stands for what botocore did not expect, and quotes it.
    if type(error) is HTTPClientError:
        cause = error.kwargs.get("error")
        if isinstance(cause, ValueError):
            return PermanentError(f"cannot {what}: {NO_PROXY_URL}")
        return AttemptError(f"cannot {what}: the request failed ({type(cause).__name__})")
    return AttemptError(f"cannot {what}: {' '.join(str(error).split())}")


def _explain_signature(message: str, region: str) -> str:
    """Say what a refused signature may mean; the service's own words show the session's token."""
    if "scoped to a valid region" in message or "valid region" in message:
        return f"the endpoint is not in region {region}; check the store's region and endpoint_url"
    if "expired" in message or "not yet current" in message:
        return "the signature is out of date: this machine's clock is wrong"
    return f"the secret key does not belong to the access key; {HOW_TO_SIGN_IN}"
