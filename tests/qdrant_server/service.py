"""The gRPC services of the tests' server: the part of Qdrant's public protocol a pipeline uses."""

import os
from collections.abc import Callable
from typing import Any

import grpc
import qdrant_edge as edge
from qdrant_client import grpc as qdrant

from tests.qdrant_server import convert, strict
from tests.qdrant_server.faults import Faults, pause
from tests.qdrant_server.storage import AlreadyExistsError, Collection, NotFoundError, Storage

Handler = Callable[[Any], Any]


class Calls:
    """The handlers by name. Each takes a request and returns an answer, or raises."""

    def __init__(self, storage: Storage, version: str) -> None:
        self._storage = storage
        self._version = version

    def HealthCheck(self, _request: Any) -> Any:  # noqa: N802 - the protocol's names
        return qdrant.HealthCheckReply(title="qdrant - vector search engine", version=self._version)

    # Collections

    def List(self, _request: Any) -> Any:  # noqa: N802
        names = [qdrant.CollectionDescription(name=name) for name in self._storage.names()]
        return qdrant.ListCollectionsResponse(collections=names)

    def CollectionExists(self, request: Any) -> Any:  # noqa: N802
        try:
            self._storage.resolve(request.collection_name)
        except NotFoundError:
            return qdrant.CollectionExistsResponse(result=qdrant.CollectionExists(exists=False))
        return qdrant.CollectionExistsResponse(result=qdrant.CollectionExists(exists=True))

    def Create(self, request: Any) -> Any:  # noqa: N802
        if request.vectors_config.WhichOneof("config") != "params":
            raise convert.WrongInputError("the tests' server keeps one unnamed vector")
        params = request.vectors_config.params
        self._storage.create(
            request.collection_name,
            {
                "size": params.size,
                "distance": qdrant.Distance.Name(params.distance),
                "on_disk": params.on_disk,
                "shard_number": request.shard_number or 1,
                "replication_factor": request.replication_factor or 1,
                "metadata": convert.payload(request.metadata),
                "indexes": {},
                "strict": convert.given(request.strict_mode_config),
            },
        )
        return qdrant.CollectionOperationResponse(result=True)

    def Get(self, request: Any) -> Any:  # noqa: N802
        if isinstance(request, qdrant.GetPoints):
            return self._get_points(request)
        return qdrant.GetCollectionInfoResponse(result=_info(self._storage.resolve(request.collection_name)))

    def Update(self, request: Any) -> Any:  # noqa: N802
        self._storage.update(request.collection_name, convert.payload(request.metadata))
        if request.hnsw_config.HasField("m"):
            self._storage.set_links(request.collection_name, request.hnsw_config.m)
        if request.HasField("strict_mode_config"):
            self._storage.set_strict(request.collection_name, convert.given(request.strict_mode_config))
        return qdrant.CollectionOperationResponse(result=True)

    def Delete(self, request: Any) -> Any:  # noqa: N802
        if isinstance(request, qdrant.DeletePoints):
            return self._delete_points(request)
        return qdrant.CollectionOperationResponse(result=self._storage.delete(request.collection_name))

    def UpdateAliases(self, request: Any) -> Any:  # noqa: N802
        for action in request.actions:
            if action.WhichOneof("action") == "create_alias":
                self._storage.create_alias(action.create_alias.alias_name, action.create_alias.collection_name)
            elif action.WhichOneof("action") == "delete_alias":
                self._storage.delete_alias(action.delete_alias.alias_name)
            else:
                raise convert.WrongInputError("the tests' server renames no alias")
        return qdrant.CollectionOperationResponse(result=True)

    def ListAliases(self, _request: Any) -> Any:  # noqa: N802
        return _aliases(dict(self._storage.aliases))

    def ListCollectionAliases(self, request: Any) -> Any:  # noqa: N802
        self._storage.resolve(request.collection_name)
        aliases = self._storage.aliases.items()
        return _aliases({alias: name for alias, name in aliases if name == request.collection_name})

    # Points

    def Upsert(self, request: Any) -> Any:  # noqa: N802
        strict.verify_upsert(self._storage.resolve(request.collection_name).settings, request)
        points = [convert.point(point) for point in request.points]
        guard = convert.filter_of(request.update_filter) if request.HasField("update_filter") else None
        mode = convert.MODES[request.update_mode] if request.HasField("update_mode") else None
        self._update(request.collection_name, edge.UpdateOperation.upsert_points(points, guard, mode))
        return _updated(request)

    def CreateFieldIndex(self, request: Any) -> Any:  # noqa: N802
        kind, params = qdrant.FieldType.Name(request.field_type), request.field_index_params
        self._storage.index(request.collection_name, request.field_name, kind, params.SerializeToString().hex())
        return _updated(request)

    def DeleteFieldIndex(self, request: Any) -> Any:  # noqa: N802
        self._storage.drop_index(request.collection_name, request.field_name)
        return _updated(request)

    def Scroll(self, request: Any) -> Any:  # noqa: N802
        found = self._readable(request)
        scroll = edge.ScrollRequest(
            offset=convert.point_id(request.offset) if request.HasField("offset") else None,
            limit=request.limit if request.HasField("limit") else 10,
            filter=_filter(request),
            with_payload=convert.with_payload(request.with_payload),
            with_vector=request.with_vectors.enable,
        )
        with found.lock:
            records, following = found.shard.scroll(scroll)
        answer = qdrant.ScrollResponse(result=[_retrieved(record) for record in records])
        if following is not None:
            answer.next_page_offset.CopyFrom(convert.to_point_id(following))
        return answer

    def Count(self, request: Any) -> Any:  # noqa: N802
        found = self._readable(request)
        with found.lock:
            count = found.shard.count(edge.CountRequest(exact=True, filter=_filter(request)))
        return qdrant.CountResponse(result=qdrant.CountResult(count=count))

    def Query(self, request: Any) -> Any:  # noqa: N802
        vector = list(request.query.nearest.dense.data)
        if not vector:
            raise convert.WrongInputError("the tests' server answers nearest-vector queries only")
        return qdrant.QueryResponse(result=self._search(request, vector))

    def Search(self, request: Any) -> Any:  # noqa: N802
        return qdrant.SearchResponse(result=self._search(request, list(request.vector)))

    def _search(self, request: Any, vector: list[float]) -> list[Any]:
        found = self._readable(request)
        search = edge.SearchRequest(
            edge.Query.Nearest(vector),
            request.limit or 10,
            offset=request.offset,
            filter=_filter(request),
            with_vector=request.with_vectors.enable,
            with_payload=convert.with_payload(request.with_payload),
            score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        )
        with found.lock:
            hits = found.shard.search(search)
        return [
            qdrant.ScoredPoint(
                id=convert.to_point_id(hit.id),
                payload=convert.to_payload(hit.payload or {}),
                score=hit.score,
                version=hit.version,
                vectors=convert.to_vectors(hit.vector),
            )
            for hit in hits
        ]

    def _readable(self, request: Any) -> Collection:
        """Returns the collection of a read that its strict mode lets pass."""
        found = self._storage.resolve(request.collection_name)
        strict.verify_read(found.settings, request)
        return found

    def _get_points(self, request: Any) -> Any:
        found = self._storage.resolve(request.collection_name)
        ids: list[Any] = [convert.point_id(point) for point in request.ids]
        with found.lock:
            records = found.shard.retrieve(ids, convert.with_payload(request.with_payload), request.with_vectors.enable)
        return qdrant.GetResponse(result=[_retrieved(record) for record in records])

    def _delete_points(self, request: Any) -> Any:
        strict.verify_delete(self._storage.resolve(request.collection_name).settings, request)
        if request.points.WhichOneof("points_selector_one_of") == "filter":
            operation = edge.UpdateOperation.delete_points_by_filter(convert.filter_of(request.points.filter))
        else:
            operation = edge.UpdateOperation.delete_points(
                [convert.point_id(point) for point in request.points.points.ids]
            )
        self._update(request.collection_name, operation)
        return _updated(request)

    def _update(self, name: str, operation: Any) -> None:
        found = self._storage.resolve(name)
        self._storage.check_space()
        with found.lock:
            found.shard.update(operation)


def _updated(request: Any) -> Any:
    status = qdrant.UpdateStatus.Completed if request.wait else qdrant.UpdateStatus.Acknowledged
    return qdrant.PointsOperationResponse(result=qdrant.UpdateResult(operation_id=0, status=status))


def _filter(request: Any) -> edge.Filter | None:
    return convert.filter_of(request.filter) if request.HasField("filter") else None


def _retrieved(record: edge.Record) -> Any:
    return qdrant.RetrievedPoint(
        id=convert.to_point_id(record.id),
        payload=convert.to_payload(record.payload or {}),
        vectors=convert.to_vectors(record.vector),
    )


def _aliases(aliases: dict[str, str]) -> Any:
    described = [qdrant.AliasDescription(alias_name=alias, collection_name=name) for alias, name in aliases.items()]
    return qdrant.ListAliasesResponse(aliases=described)


def _params(shown: str) -> Any:
    """Returns an index's parameters from their hex; None where it was built without any."""
    return qdrant.PayloadIndexParams.FromString(bytes.fromhex(shown)) if shown else None


def _info(found: Collection) -> Any:
    settings = found.settings
    with found.lock:
        shard = found.shard.info()
    vectors = qdrant.VectorParams(
        size=settings["size"], distance=qdrant.Distance.Value(settings["distance"]), on_disk=settings["on_disk"]
    )
    config = qdrant.CollectionConfig(
        params=qdrant.CollectionParams(
            shard_number=settings["shard_number"],
            on_disk_payload=True,
            vectors_config=qdrant.VectorsConfig(params=vectors),
            replication_factor=settings["replication_factor"],
            write_consistency_factor=1,
        ),
        hnsw_config=qdrant.HnswConfigDiff(m=settings.get("hnsw_m", 16), ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=qdrant.OptimizersConfigDiff(
            deleted_threshold=0.2, vacuum_min_vector_number=1_000, default_segment_number=0, flush_interval_sec=5
        ),
        wal_config=qdrant.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
        metadata=convert.to_payload(settings["metadata"]),
        strict_mode_config=qdrant.StrictModeConfig(**settings.get("strict", {})),
    )
    schema = {
        path: qdrant.PayloadSchemaInfo(
            data_type=qdrant.PayloadSchemaType.Value(kind.removeprefix("FieldType")),
            params=_params(settings.get("index_params", {}).get(path, "")),
            points=shard.points_count,
        )
        for path, kind in settings["indexes"].items()
    }
    return qdrant.CollectionInfo(
        status=qdrant.CollectionStatus.Green,
        optimizer_status=qdrant.OptimizerStatus(ok=True),
        segments_count=shard.segments_count,
        config=config,
        payload_schema=schema,
        points_count=shard.points_count,
        indexed_vectors_count=shard.indexed_vectors_count,
    )


class Service:
    """Puts credentials, faults and error answers around the handlers."""

    def __init__(self, calls: Calls, faults: Faults, api_key: str) -> None:
        self._calls = calls
        self._faults = faults
        self._api_key = api_key

    def handler(self, service: str, name: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        """Returns what answers a call of one service."""
        carry_out: Handler = getattr(self._calls, name)

        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            if name != "HealthCheck":
                self._authorize(context)
            fault = self._faults.next(f"{service}/{name}", request)
            if fault is None:
                return _answer(carry_out, request, context)
            is_normal = not (fault.code or fault.exit or fault.ignore)
            answer = _answer(carry_out, request, context) if fault.apply or is_normal else None
            if fault.ignore:
                answer = _updated(request)
            pause(fault)
            if fault.exit:
                os._exit(9)
            if fault.code:
                context.set_trailing_metadata(tuple(fault.trailing.items()))
                context.abort(grpc.StatusCode[fault.code], fault.detail)
            if fault.status and answer is not None:
                answer.result.status = qdrant.UpdateStatus.Value(fault.status)
            return answer

        return serve

    def _authorize(self, context: grpc.ServicerContext) -> None:
        if self._api_key and dict(context.invocation_metadata()).get("api-key") != self._api_key:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Invalid API key or JWT")


def _answer(carry_out: Handler, request: Any, context: grpc.ServicerContext) -> Any:
    try:
        return carry_out(request)
    except NotFoundError as error:
        context.abort(grpc.StatusCode.NOT_FOUND, str(error))
    except AlreadyExistsError as error:
        context.abort(grpc.StatusCode.ALREADY_EXISTS, str(error))
    except convert.WrongInputError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}")
    except Exception as error:  # noqa: BLE001 - Edge raises nothing more precise
        wrong = "Vector dimension error" in str(error)
        code = grpc.StatusCode.INVALID_ARGUMENT if wrong else grpc.StatusCode.INTERNAL
        context.abort(code, f"{'Wrong input' if wrong else 'Service internal error'}: {error}")
