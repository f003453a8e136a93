"""What the errors of kafka-python mean in `pipeline.errors`."""

import ssl

import kafka.errors as kafka_errors

from pipeline.config.source import SourceConfig
from pipeline.errors import EnvironmentFault, RefractError, TransientError
from pipeline.sources.client.inflate import InflatedTooLargeError

_NEED_A_PERSON = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.UnsupportedCodecError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.UnrecognizedBrokerVersion,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.InconsistentGroupProtocolError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.GroupMaxSizeReachedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
    kafka_errors.OffsetMetadataTooLargeError,
    kafka_errors.InvalidRequiredAcksError,
    InflatedTooLargeError,
)
"""Errors that no repetition mends."""

GROUP_MOVED_ON = (
    kafka_errors.CommitFailedError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
)
"""Commits refused because the group has moved on. Nothing is lost: the new owner reads these records again."""

_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (
        kafka_errors.SaslAuthenticationFailedError,
        "; check source.security, which says {config.security.sasl_mechanism}",
    ),
    (kafka_errors.GroupAuthorizationFailedError, "; the principal needs READ on group {config.group_id!r}"),
    (
        kafka_errors.AuthorizationError,
        "; the principal needs READ on the topics and WRITE on {config.dead_letter_topic!r}",
    ),
    (
        kafka_errors.FencedInstanceIdError,
        (
            "; another process runs under group_instance_id {config.group_instance_id!r} with the same number. Where a "
            "second cluster runs beside this one, give each its own value"
        ),
    ),
    (
        kafka_errors.InconsistentGroupProtocolError,
        "; group {config.group_id!r} has members with another assignment strategy than cooperative-sticky",
    ),
    (
        InflatedTooLargeError,
        (
            "; if records really are so large, raise source.max_inflated_batch_bytes "
            "({config.max_inflated_batch_bytes}), else set the offset of group {config.group_id!r} past that batch "
            "on purpose"
        ),
    ),
)
"""The first that fits says what to look at."""


def error_from_kafka(error: BaseException, doing: str, config: SourceConfig) -> RefractError:
    """Returns the error of `pipeline.errors` that a client's error amounts to. `doing` says what failed ("reading").

    Raise it `from` the original where that adds something. Its message names the brokers, never the data.
    """
    brokers = ", ".join(config.bootstrap_servers)
    message = f"{doing}: {_said(error)}; brokers {brokers}"
    if isinstance(error, _NEED_A_PERSON) or _is_certificate_refused(error):
        return EnvironmentFault(f"{message}{_advice(error, config)}")
    if isinstance(error, kafka_errors.KafkaError | OSError):
        return TransientError(message)
    return EnvironmentFault(f"{message}; this is unexpected")


def _said(error: BaseException) -> str:
    name = type(error).__name__
    text = str(error).split("\n", 1)[0].removeprefix(name).removeprefix(": ")[:200]
    return f"{name} ({text})" if text else name


def _is_certificate_refused(error: BaseException) -> bool:
    # The client wraps the handshake's error without naming it as the cause.
    return isinstance(error.__context__, ssl.SSLCertVerificationError)


def _advice(error: BaseException, config: SourceConfig) -> str:
    if _is_certificate_refused(error):
        return "; check source.security.ca_file, and that the certificate names the host"
    return next((text.format(config=config) for kind, text in _ADVICE if isinstance(error, kind)), "")
