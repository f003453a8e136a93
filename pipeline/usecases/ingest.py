"""Puts one member of the consumer group together: source, refractor and loop over a configuration's topics."""

from functools import partial
from threading import Event

from pipeline.context import Context
from pipeline.interfaces import PointStore, Source
from pipeline.live.durability import Durability
from pipeline.live.offsets import OffsetTracker
from pipeline.live.refractor import Refractor
from pipeline.live.routes import Ports, Routes
from pipeline.live.witness import confirm
from pipeline.live.worker import Loop, StreamWorker
from pipeline.records.decode import Decoders
from pipeline.records.record import PointIds
from pipeline.sources.group.kafka_source import KafkaSource
from pipeline.sources.group.member import GroupMember


def build_member(
    context: Context, store: PointStore, ports: Ports, stop: Event, name: str
) -> tuple[StreamWorker, OffsetTracker]:
    """Returns a worker that reads every topic of the configuration, and its tracker. Nothing is connected yet.

    `store` is the one that the ports write to: it is also opened, flushed and asked for what it holds.
    The worker ends once `stop` is set. `name` tells the members of the group apart (see `member_name`): it ends the
    client's id and, with static membership, the member's.
    Raises ConfigError, TransientError where a model's files cannot be read.
    """
    config, tracker = context.config, OffsetTracker()
    tasks = {name: [context.tasks[task] for task in topic.tasks] for name, topic in config.source.topics.items()}
    models = {task.config.model for used in tasks.values() for task in used}
    routes = Routes(PointIds(config.pipeline, config.source.key_spaces), tasks, context.tokenizers(models))
    held = partial(confirm, store, tasks, config.source.group_id)

    decoders = Decoders(config.source, config.limits)

    def open_source() -> Source:
        return KafkaSource(GroupMember(config.source, name), decoders, tracker, confirm=held)

    loop = Loop(config.live_limits, config.source.commit_interval_s, stop)
    durability = Durability(store, routes.all_tasks, tracker, held)
    return StreamWorker(open_source, Refractor(routes, ports, tracker), durability, ports.observer, loop), tracker
