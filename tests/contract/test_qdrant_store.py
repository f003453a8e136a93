"""What only the server store promises: versions, credentials, indexes, ordering, and a protocol others speak too."""

import datetime as dt
import ipaddress
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as qdrant

from pipeline.binding import Task
from pipeline.config.store import QdrantStoreConfig
from pipeline.errors import ConfigError, EnvironmentFault
from pipeline.filters import payload_path
from pipeline.stores.qdrant import QdrantStore
from pipeline.stores.qdrant_rpc import QdrantConnection
from tests.contract.store_backends import (
    DIMENSION,
    FIELDS,
    PIPELINE,
    QdrantBackend,
    delete,
    key_id,
    make_batch,
    make_task,
    put,
    unit,
)
from tests.qdrant_server.process import QdrantServer


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[QdrantServer]:
    """A server with the arguments of the test's parameter."""
    running = QdrantServer(tmp_path / "own", *request.param).start()
    yield running
    running.stop()


@pytest.fixture
def task(qdrant_backend: QdrantBackend) -> Task:
    return qdrant_backend.task()


@pytest.fixture
def store(qdrant_backend: QdrantBackend, task: Task) -> QdrantStore:
    opened = qdrant_backend.connect()
    assert isinstance(opened, QdrantStore)
    opened.open([task])
    return opened


@pytest.mark.parametrize("server", [("--version", "1.18.2"), ("--version", "dev")], indirect=True)
def test_a_server_whose_log_replay_is_unsafe_is_refused(server: QdrantServer) -> None:
    store = QdrantStore(QdrantStoreConfig(type="qdrant", url=server.url), PIPELINE)
    for call in (store.check, lambda: store.open([make_task("t")])):
        with pytest.raises(EnvironmentFault, match=r"1\.19 or later is needed"):
            call()
    store.close()


@pytest.mark.parametrize("server", [("--version", "1.20.0-dev"), ("--version", "2.0")], indirect=True)
def test_a_later_server_is_taken(server: QdrantServer) -> None:
    store = QdrantStore(QdrantStoreConfig(type="qdrant", url=server.url), PIPELINE)
    assert store.check().startswith("Qdrant ")
    store.close()


@pytest.mark.parametrize("server", [("--api-key", "s3cret")], indirect=True)
@pytest.mark.parametrize("key", [None, "wrong-key"])
def test_a_missing_or_wrong_api_key_is_an_environment_fault_that_does_not_show_it(
    server: QdrantServer, key: str | None
) -> None:
    config = QdrantStoreConfig.model_validate({"type": "qdrant", "url": server.url, "api_key": key})
    store = QdrantStore(config, PIPELINE)
    with pytest.raises(EnvironmentFault, match="API key") as caught:
        store.check()
    assert "wrong-key" not in str(caught.value)
    store.close()


@pytest.mark.parametrize("server", [("--api-key", "s3cret")], indirect=True)
def test_the_api_key_opens_the_server(server: QdrantServer) -> None:
    config = QdrantStoreConfig.model_validate({"type": "qdrant", "url": server.url, "api_key": "s3cret"})
    store = QdrantStore(config, PIPELINE)
    store.open([make_task("t")])
    store.upsert(make_batch([put("k", 1)], make_task("t")))
    assert store.count(make_task("t").collection) == 1
    store.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Writes a certificate for 127.0.0.1 and its key; returns both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_verified_against_the_given_authority(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server = QdrantServer(tmp_path / "tls", "--tls-cert", str(certificate), "--tls-key", str(key)).start()
    url = f"https://127.0.0.1:{server.port}"
    trusting = QdrantStore(QdrantStoreConfig(type="qdrant", url=url, ca_file=certificate), PIPELINE)
    assert trusting.check() == "Qdrant 1.19.0"
    trusting.close()
    doubting = QdrantStore(QdrantStoreConfig(type="qdrant", url=url, timeout_s=2), PIPELINE)
    with pytest.raises(EnvironmentFault, match="certificate"):
        doubting.check()
    doubting.close()
    server.stop()


def test_an_authority_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    config = QdrantStoreConfig(type="qdrant", url="https://127.0.0.1:6334", ca_file=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"missing\.pem.*No such file"):
        QdrantStore(config, PIPELINE)


def test_an_address_with_a_path_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="without a path"):
        QdrantStore(QdrantStoreConfig(type="qdrant", url="http://host:6334/path"), PIPELINE)


def test_a_new_collection_says_what_it_holds_and_indexes_what_is_filtered(
    qdrant_backend: QdrantBackend, store: QdrantStore, task: Task
) -> None:
    assert store.count(task.collection) == 0
    request = qdrant.GetCollectionInfoRequest(collection_name=task.collection)
    info = qdrant_backend.collections().Get(request).result
    params = info.config.params.vectors_config.params
    assert (params.size, params.distance) == (DIMENSION, qdrant.Distance.Cosine)
    assert info.config.metadata["fingerprint"].string_value == task.fingerprint
    assert info.config.metadata["pipeline"].string_value == PIPELINE
    assert set(info.payload_schema) == {"_state", *(payload_path(name) for name in FIELDS)}
    assert "customer.name" not in info.payload_schema  # a path of two names; ours is one, quoted
    assert "_version" not in info.payload_schema


@pytest.mark.parametrize(
    ("size", "distance", "message"),
    [
        (DIMENSION, qdrant.Distance.Dot, "distance 'Dot'.*needs 'Cosine'"),
        (DIMENSION + 1, qdrant.Distance.Cosine, f"dimension {DIMENSION + 1}.*needs {DIMENSION}"),
        (DIMENSION, qdrant.Distance.Cosine, "has schema None"),
    ],
)
def test_a_collection_made_by_somebody_else_is_refused(
    qdrant_backend: QdrantBackend, size: int, distance: int, message: str
) -> None:
    task = qdrant_backend.task("foreign")
    params = qdrant.VectorParams(size=size, distance=distance)  # type: ignore[arg-type]  # an int at run time
    qdrant_backend.collections().Create(
        qdrant.CreateCollection(collection_name=task.collection, vectors_config=qdrant.VectorsConfig(params=params))
    )
    with pytest.raises(EnvironmentFault, match=message):
        qdrant_backend.connect().open([task])


def test_an_alias_that_is_already_a_collection_is_an_environment_fault(qdrant_backend: QdrantBackend) -> None:
    task = qdrant_backend.task("taken")
    params = qdrant.VectorParams(size=DIMENSION, distance=qdrant.Distance.Cosine)
    qdrant_backend.collections().Create(
        qdrant.CreateCollection(collection_name=task.alias, vectors_config=qdrant.VectorsConfig(params=params))
    )
    with pytest.raises(EnvironmentFault, match="the name is taken"):
        qdrant_backend.connect().open([task])


def test_two_ingestors_that_open_at_once_agree(qdrant_backend: QdrantBackend, task: Task) -> None:
    first, second = qdrant_backend.connect(), qdrant_backend.connect()
    first.open([task])
    second.open([task])
    first.upsert(make_batch([put("k", 2)], task))
    assert second.upsert(make_batch([put("k", 1)], task)).stale == {task.collection: 1}


def test_a_moved_alias_is_noticed_after_a_moment_and_never_mixes_answers(
    qdrant_backend: QdrantBackend, task: Task
) -> None:
    now = [0.0]
    reader = QdrantStore(qdrant_backend.config, PIPELINE, clock=lambda: now[0])
    writer = qdrant_backend.connect()
    changed = make_task(task.name, seed="changed")
    writer.open([task, changed])
    writer.upsert(make_batch([put("old", 1)], task))
    writer.upsert(make_batch([put("new", 1)], changed))
    assert [hit.id for hit in reader.search(task, unit(1.0), 5, ())] == [key_id("old")]
    writer.move_alias(changed)
    now[0] = 0.5
    assert [hit.id for hit in reader.search(task, unit(1.0), 5, ())] == [key_id("old")]
    now[0] = 1.5
    with pytest.raises(EnvironmentFault, match="migration"):
        reader.search(task, unit(1.0), 5, ())
    assert [hit.id for hit in reader.search(changed, unit(1.0), 5, ())] == [key_id("new")]
    reader.close()


def test_batches_are_cut_to_the_configured_number_of_points(qdrant_backend: QdrantBackend) -> None:
    config = qdrant_backend.config.model_copy(update={"batch_points": 7, "shard_number": 3, "replication_factor": 2})
    store, task = QdrantStore(config, PIPELINE), qdrant_backend.task("small")
    store.open([task])
    store.upsert(make_batch([put(key, 5) for key in range(50)], task))
    written = store.upsert(make_batch([put(key, 4 + key % 2) for key in range(50)], task))
    assert written.stale == {task.collection: 25}
    assert store.count(task.collection) == 50
    store.upsert(make_batch([delete(key, 9) for key in range(50)], task))
    assert store.purge_tombstones(task.collection, {key_id(key): 9 for key in range(50)}) == 50
    store.close()


@pytest.mark.parametrize(
    ("replicas", "ordering"), [(1, None), (2, qdrant.WriteOrdering(type=qdrant.WriteOrderingType.Strong))]
)
def test_replicated_collections_are_written_in_one_strong_order(
    qdrant_backend: QdrantBackend,
    monkeypatch: pytest.MonkeyPatch,
    replicas: int,
    ordering: qdrant.WriteOrdering | None,
) -> None:
    sent: list[qdrant.UpsertPoints] = []
    genuine = QdrantConnection.upsert

    def recorded(connection: QdrantConnection, request: bytes, doing: str, num_points: int) -> None:
        sent.append(qdrant.UpsertPoints.FromString(request))
        genuine(connection, request, doing, num_points)

    monkeypatch.setattr(QdrantConnection, "upsert", recorded)
    config = qdrant_backend.config.model_copy(update={"replication_factor": replicas, "batch_points": 3})
    store, task = QdrantStore(config, PIPELINE), qdrant_backend.task("replicated")
    store.open([task])
    store.upsert(make_batch([put(key, 5) for key in range(7)], task))
    assert [(len(request.points), len(request.update_filter.should)) for request in sent] == [(3, 3), (3, 3), (1, 1)]
    for request in sent:
        assert request.wait
        assert (request.ordering if request.HasField("ordering") else None) == ordering
    store.close()


def test_the_tests_server_speaks_to_the_stock_client_too(
    qdrant_server: QdrantServer, store: QdrantStore, task: Task
) -> None:
    store.upsert(make_batch([put("a", 1, team="red"), delete("b", 1)], task))
    client = QdrantClient(host="127.0.0.1", grpc_port=qdrant_server.port, prefer_grpc=True, check_compatibility=False)
    info = client.get_collection(task.alias)
    assert info.config.metadata is not None
    assert info.config.metadata["fingerprint"] == task.fingerprint
    assert info.points_count == 2
    assert client.collection_exists(task.collection)
    point = models.PointStruct(id=str(uuid.uuid4()), vector=unit(0.0, 1.0).tolist(), payload={"team": "blue"})
    client.upsert(task.collection, [point], wait=True)
    hits = client.query_points(task.collection, query=unit(0.0, 1.0).tolist(), limit=1, with_vectors=True).points
    assert hits[0].id == point.id
    assert np.allclose(np.array(hits[0].vector), unit(0.0, 1.0))
    red = models.Filter(must=[models.FieldCondition(key="team", match=models.MatchValue(value="red"))])
    assert client.count(task.collection, count_filter=red).count == 1
    records, following = client.scroll(task.collection, limit=2)
    assert len(records) == 2
    assert following is not None
    client.delete(task.collection, points_selector=models.PointIdsList(points=[point.id]), wait=True)
    assert client.retrieve(task.collection, [point.id]) == []
    client.close()
