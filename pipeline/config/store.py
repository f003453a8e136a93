"""Where the points go: an embedded directory, or a server."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import FilePath, Secret, Section, Url


class EdgeStoreConfig(Section):
    """Qdrant Edge: the server's engine in this process's directory, no server to install."""

    type: Literal["edge"]
    path: FilePath = Field(description="Directory of the shards. One owner at a time.")
    optimize_interval_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="How often deleted points are dropped and segments merged in the background. Raising it saves CPU "
        "and keeps more of what was replaced on disk.",
    )


class QdrantStoreConfig(Section):
    """A Qdrant server, 1.19 or later, over gRPC."""

    type: Literal["qdrant"]
    url: Url = Field(description="http(s)://host:6334, the gRPC port.")
    api_key: Secret | None = Field(None, description="Write it as ${NAME}.")
    ca_file: FilePath | None = Field(None, description="PEM file of the authority behind an https url.")
    timeout_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Longest wait for one answer; later its outcome is unknown and the call is repeated. Raising it "
        "rides out a slow server and finds a dead one later.",
    )
    batch_points: int = Field(
        512,
        ge=1,
        le=1_000,
        description="Points of one guarded upsert. Raising it saves requests, but the guard costs its square: best at "
        "256 to 1,000.",
    )
    shard_number: int = Field(
        1,
        ge=1,
        le=1024,
        description="Shards of collections created here. A guarded write locks one, so raising it lets more writers "
        "work at once, and costs memory.",
    )
    replication_factor: int = Field(
        1,
        ge=1,
        le=16,
        description="Copies of every shard. Raising it survives the loss of a server and slows writes: above 1 they "
        "use strong ordering.",
    )
    on_disk: bool = Field(False, description="Keeps vectors of new collections on disk.")

    @model_validator(mode="after")
    def _key_needs_tls(self) -> Self:
        host = re.sub(r"^https?://", "", self.url).split("/")[0].rsplit(":", 1)[0]
        if self.api_key and self.url.startswith("http://") and host not in {"127.0.0.1", "localhost", "[::1]"}:
            raise ValueError("api_key would travel unencrypted: use an https url")
        return self
