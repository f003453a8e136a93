"""How to reach the brokers: TLS and SASL."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import FilePath, Secret, Section, Url


class SecurityConfig(Section):
    """How to reach the brokers. Kafka's own names and values."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka's security.protocol."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="Needed with SASL_PLAINTEXT and SASL_SSL."
    )
    username: str | None = Field(None, description="For PLAIN and SCRAM.")
    password: Secret | None = Field(None, description="For PLAIN and SCRAM; write it as ${NAME}.")
    oauth_token_url: Url | None = Field(
        None, description="OAUTHBEARER: where client credentials are exchanged for a token."
    )
    oauth_client_id: str | None = Field(None, description="OAUTHBEARER: client id.")
    oauth_client_secret: Secret | None = Field(None, description="OAUTHBEARER: client secret; write it as ${NAME}.")
    oauth_scope: str | None = Field(None, description="OAUTHBEARER: scope asked for.")
    ca_file: FilePath | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates."
    )
    cert_file: FilePath | None = Field(None, description="PEM certificate of this client, for mutual TLS.")
    key_file: FilePath | None = Field(None, description="PEM key of cert_file.")
    key_password: Secret | None = Field(None, description="Password of key_file; write it as ${NAME}.")
    check_hostname: bool = Field(True, description="Refuses brokers whose certificate names another host.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol.startswith("SASL") != (self.sasl_mechanism is not None):
            raise ValueError("sasl_mechanism is needed with a SASL_* protocol, and only there")
        if self.sasl_mechanism in {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} and not (self.username and self.password):
            raise ValueError(f"{self.sasl_mechanism} needs username and password")
        if self.sasl_mechanism == "OAUTHBEARER" and not (
            self.oauth_token_url and self.oauth_client_id and self.oauth_client_secret
        ):
            raise ValueError("OAUTHBEARER needs oauth_token_url, oauth_client_id and oauth_client_secret")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self
