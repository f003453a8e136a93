"""Settings of Kafka clients that people bring along: why they are not set here, or where they go instead."""

REFUSED_SOURCE_KEYS = {
    "enable_auto_commit": "refract commits by itself, an offset only when every earlier record is stored; "
    "auto-commit would commit records that are still on their way",
    "auto_commit_interval_ms": "there is no auto-commit; use commit_interval_s",
    "auto_offset_reset": "refract decides where to read itself, because a reset skips records silently; "
    "start_from says where a new group begins",
    "isolation_level": "refract always reads committed records only; read_uncommitted would index records of "
    "transactions that never happened",
    "group_protocol": "the client speaks the classic group protocol; KIP-848 (group_protocol: consumer) is not "
    "available in it",
    "partition_assignment_strategy": "refract always uses cooperative-sticky; a group that mixes it with an eager "
    "strategy stops at every rebalance",
    "key_deserializer": "refract reads raw bytes and decodes them itself, so that one bad record cannot stop a "
    "partition",
    "value_deserializer": "refract reads raw bytes and decodes them itself, so that one bad record cannot stop a "
    "partition; see topics.<topic>.format",
    "consumer_timeout_ms": "the pipeline runs until it is stopped",
    "check_crcs": "checksums are always verified",
    "topic": "topics are named under source.topics",
    "pattern": "a pattern could match the dead-letter topic; name every topic under source.topics",
    "security_protocol": "write it as source.security.protocol",
    "sasl_mechanism": "write it as source.security.sasl_mechanism",
    "sasl_plain_username": "write it as source.security.username",
    "sasl_plain_password": "write it as source.security.password",
    "sasl_jaas_config": "write username and password under source.security",
    "ssl_cafile": "write it as source.security.ca_file",
    "ssl_certfile": "write it as source.security.cert_file",
    "ssl_keyfile": "write it as source.security.key_file",
    "ssl_password": "write it as source.security.key_password",
    "ssl_check_hostname": "write it as source.security.check_hostname",
}
"""Key under `source`, with underscores -> the reason. Kafka's dotted spelling is looked up the same way."""


def why_refused(key: str) -> str | None:
    """Returns why a Kafka setting is not accepted under `source`; None when it is simply unknown."""
    return REFUSED_SOURCE_KEYS.get(key.replace(".", "_").replace("-", "_"))
