"""What one can do with Refract, from Python: one object over one configuration.

    from pipeline import Session

    with Session.open("configs/demo.yaml") as refract:
        rows = refract.embed("urgency", ["the server room is on fire"])
        hits = refract.search("urgency", "nobody can log in", limit=5)
        report = refract.backfill("old/*.parquet")
        report = refract.verify()

Nothing is loaded before it is used: opening a session reads the file, `embed` loads the task's model, and `search`
opens the store.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pipeline.config.load import ConfigTree
from pipeline.config.pipeline import Config

if TYPE_CHECKING:
    from pipeline.backfill.counts import BackfillReport
    from pipeline.backfill.executor import BackfillExecutor
    from pipeline.backfill.watch import BackfillWatch, Watch
    from pipeline.binding import Task
    from pipeline.compare.report import RepairReport, VerifyReport
    from pipeline.context import Context
    from pipeline.interfaces import Progress
    from pipeline.records.batches import Float32
    from pipeline.searcher import Hit
    from pipeline.tuning.loop import StepFacts
    from pipeline.usecases.backfill import BackfillRequest
    from pipeline.usecases.check import CheckReport
    from pipeline.usecases.compare import DeleteExtras
    from pipeline.usecases.compared_sources import CompareRequest
    from pipeline.usecases.estimate import EstimateReport, EstimateRequest
    from pipeline.usecases.evaluate import EvaluateReport, EvaluateRequest
    from pipeline.usecases.produce import ProduceReport, ProduceRequest
    from pipeline.usecases.purge import PurgedStore, PurgeReport, PurgeRequest
    from pipeline.usecases.search import StoreSearch
    from pipeline.usecases.tune_request import TuneReport, TuneRequest

Executor = Literal["ray", "local"]
"""Where a backfill's work is done: on a Ray cluster, or in this process."""

InputType = Literal["query", "document"]
"""The side of a task that texts are embedded on. Records are documents; a symmetric task asks the same of both."""


class Session:
    """One configuration, used from Python. Close it, or use it in a `with`. One thread."""

    def __init__(self, source: ConfigTree) -> None:
        """Validates the configuration. Raises ConfigError with one line per fault."""
        self._source = source
        self.config: Config = source.load()
        self._context: Context | None = None
        self._search: StoreSearch | None = None

    @classmethod
    def open(cls, config: str | Path) -> Self:
        """Returns a session of a configuration file. Raises ConfigError."""
        return cls(ConfigTree.read(Path(config)))

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Self:
        """Returns a session of a configuration that is a mapping, spelled as in the file. Raises ConfigError."""
        return cls(ConfigTree(tree, "configuration"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the store and the models. Safe to call twice; a later call opens what it needs again."""
        self.release_store()
        self._search = self._context = None

    @property
    def context(self) -> "Context":
        """The configuration in use, for the functions of `pipeline.usecases`."""
        if self._context is None:
            from pipeline.context import Context

            self._context = Context(self._source)
        return self._context

    @property
    def tasks(self) -> "dict[str, Task]":
        """All tasks by name, with dimension, collection and fingerprint. Raises ConfigError, TransientError."""
        return self.context.tasks

    def embed(self, task: str, texts: Sequence[str], *, input_type: InputType = "document") -> "Float32":
        """Returns the texts' vectors under a task, computed in this process: no Ray, no Kafka, no store.

        Args:
            task: Name of a task of the configuration.
            texts: Any number of texts; each is cut to what the model takes.
            input_type: The side of the task.

        Returns:
            A (num_texts, dimension) float32 array in the order of the texts, rows L2-normalised. A row of NaN is a text
            the model gave no finite vector for.

        Raises:
            ConfigError: there is no such task, or its model cannot work as configured.
            TransientError: the model's files cannot be had just now.
        """
        from pipeline.usecases.embed import embed

        return embed(self.context, task, texts, as_queries=input_type == "query")

    def search(
        self, task: str, text: str | None = None, *, key: str | int | None = None, limit: int = 10, **filters: Any
    ) -> "list[Hit]":
        """Returns the records most similar to a text, or to the stored record of a key, by falling score.

        The query gets the task's own prompt. While the app of this configuration holds an embedded store, it is asked
        instead: the same answer, from the running app's models.

        Args:
            task: Name of a task of the configuration.
            text: What to look for; or
            key: the key of a stored record, whose neighbours are wanted.
            limit: How many hits at most.
            **filters: Payload field = a value to equal, a list of values to match any of, or {gt, gte, lt, lte}.

        Raises:
            QueryError: the query is wrong; `code` says how.
            EnvironmentFault: the store holds another task's or another instruction's vectors under this name.
            TransientError: the store does not answer.
        """
        if self._search is None:
            from pipeline.usecases.search import StoreSearch

            self._search = StoreSearch(self.context)
        return self._search.hits(task, text, key, limit, filters)

    def check(self, *, offline: bool = False) -> "CheckReport":
        """Finds what is wrong with the configuration, its models, brokers and store; starts and creates nothing.

        `offline` asks neither brokers nor store, nor a model hub. Nothing that is wrong is raised; it is in the report.
        """
        from pipeline.usecases.check import check

        self.release_store()
        return check(self.context, offline=offline)

    def backfill(
        self,
        inputs: "str | Sequence[str] | BackfillRequest",
        *,
        executor: "Executor | BackfillExecutor" = "ray",
        watch: "BackfillWatch | None" = None,
    ) -> "BackfillReport":
        """Embeds files of records, or ranges of a topic, into the tasks' collections. Run again, it continues.

        Args:
            inputs: A file, folder, glob or `kafka://TOPIC?from=…&to=…`, or several; or a request that says more.
            executor: "ray" joins the cluster of `ray.address`, or starts one on this machine; "local" works in this
                process, which starts sooner and is enough for small inputs.
            watch: Hears of the progress.

        Raises:
            ConfigError: something cannot work; nothing is written.
            EnvironmentFault, TransientError: something other than a single input failed; what is done stays done.
        """
        from pipeline.usecases.backfill import BackfillRequest, backfill

        self.release_store()
        request = inputs if isinstance(inputs, BackfillRequest) else BackfillRequest(_as_list(inputs))
        return backfill(self.context, request, self._executor(executor), watch)

    def estimate(
        self,
        inputs: "str | Sequence[str] | EstimateRequest",
        *,
        executor: "Executor | BackfillExecutor" = "ray",
        watch: "Watch | None" = None,
    ) -> "EstimateReport":
        """Says what a backfill takes: rows, tokens, time, price and room in the store. Nothing is written.

        Arguments and errors are those of `backfill`.
        """
        from pipeline.usecases.estimate import EstimateRequest, estimate_backfill

        request = inputs if isinstance(inputs, EstimateRequest) else EstimateRequest(_as_list(inputs))
        return estimate_backfill(self.context, request, self._executor(executor), watch)

    def produce(self, request: "ProduceRequest", *, progress: "Progress | None" = None) -> "ProduceReport":
        """Sends a file's records to a source topic, in order, and returns when the brokers have them.

        A row that cannot be a record is not sent, but counted in the report. Raises ConfigError for a file or topic
        that cannot be used, TransientError when the brokers are away.
        """
        from pipeline.usecases.produce import produce

        return produce(self.context, request, progress or _quiet)

    def verify(self, request: "CompareRequest | None" = None, *, progress: "Progress | None" = None) -> "VerifyReport":
        """Compares the store with its sources, key by key, and writes nothing.

        Args:
            request: What to compare with, and how closely; without one: the source topics and what was backfilled.
            progress: Called with what is being done, how much of it is done, and how much there is (0: not known).

        Raises:
            ConfigError: the request does not fit the configuration, or the running app holds an embedded store.
            TransientError, EnvironmentFault: brokers or store do not answer, or refuse.
        """
        from pipeline.usecases.compare import verify
        from pipeline.usecases.compared_sources import CompareRequest

        self.release_store()
        return verify(self.context, request or CompareRequest(), progress or _quiet)

    def repair(
        self,
        request: "CompareRequest | None" = None,
        *,
        extras: "DeleteExtras | None" = None,
        progress: "Progress | None" = None,
    ) -> "RepairReport":
        """Compares as `verify` does and writes what differs; `extras` also deletes points whose record is gone.

        Nothing newer is overwritten. Raises like `verify`, and ConfigError where extras are not proven to be such, or
        more than a tenth of a collection would be deleted, without `extras.force`.
        """
        from pipeline.usecases.compare import repair
        from pipeline.usecases.compared_sources import CompareRequest

        self.release_store()
        return repair(self.context, request or CompareRequest(), progress or _quiet, extras)

    def purge(self, request: "PurgeRequest", *, progress: "Progress | None" = None) -> "PurgeReport":
        """Counts the tombstones of every task, and with `request.execute` removes those that are old enough.

        The pipeline may run meanwhile: an embedded store that the app holds is reached through its Ray cluster.

        Raises:
            ConfigError: the age is below a topic's `delete.retention.ms`, or a backfill is not finished.
            TransientError: the brokers, the store or the app do not answer.
            EnvironmentFault: a backfill or another purge is at work, or a broker or the store refuses.
        """
        from pipeline.usecases.purge import purge

        def app_store(config: Config) -> "AbstractContextManager[PurgedStore]":
            from actors.app_store import app_store as running  # Ray

            return running(config)

        self.release_store()
        return purge(self.context, request, progress or _quiet, app_store)

    def evaluate(
        self, inputs: "str | Sequence[str] | EvaluateRequest", *, progress: "Progress | None" = None
    ) -> "EvaluateReport":
        """Says whether the tasks' instructions do their job, on records with labels; writes nothing.

        Args:
            inputs: As of `backfill`; or a request that also names label columns, queries, other wordings …
            progress: Called as in `verify`.

        Raises:
            ConfigError: a label is missing or cannot be measured, or the `quality` extra is not installed.
            RefractError: nothing can be evaluated, or an input cannot be read.
            TransientError, EnvironmentFault: the model's files or the store cannot be had.
        """
        from pipeline.usecases.evaluate import EvaluateRequest, evaluate

        self.release_store()
        request = inputs if isinstance(inputs, EvaluateRequest) else EvaluateRequest(_as_list(inputs))
        return evaluate(self.context, request, progress or _quiet)

    def tune(
        self,
        request: "TuneRequest",
        *,
        watch: "Callable[[StepFacts], None] | None" = None,
        progress: "Progress | None" = None,
    ) -> "TuneReport":
        """Trains the model on labelled records to do what its tasks' instructions ask, and writes a folder.

        Args:
            request: The records or pairs, the tasks, the folder and the method.
            watch: Called after every step of a LoRA run.
            progress: Called as in `verify`, with what begins.

        Raises:
            ConfigError: the request or the labels cannot work, or the `tune` extra is not installed.
            RefractError: the model would lose too much general ability.
            EnvironmentFault: the training diverged, or the folder cannot be written.
        """
        from pipeline.usecases.tune import tune

        trainer = None
        if request.workers > 1:
            from actors.train_run import RayTrainer

            trainer = RayTrainer(request.workers, self.config.ray.address)
        return tune(self.context, request, progress or _quiet, watch or _unwatched, trainer)

    def _executor(self, chosen: "Executor | BackfillExecutor") -> "BackfillExecutor":
        if chosen == "local":
            from pipeline.backfill.in_process import LocalExecutor

            return LocalExecutor(self.context)
        if chosen == "ray":
            from actors.backfill_run import RayExecutor

            return RayExecutor(self.config.ray.address)
        return chosen

    def release_store(self) -> None:
        """Closes the store, so that another process may open an embedded one. The next search opens it again."""
        if self._search is not None:
            self._search.close()


def _quiet(_doing: str, _done: int, _total: int) -> None:
    """Shows nothing."""


def _unwatched(_facts: "StepFacts") -> None:
    """Shows nothing."""


def _as_list(inputs: str | Sequence[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else list(inputs)
