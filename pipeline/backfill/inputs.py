"""What a backfill is to read: parts of files and ranges of topics, the units of work and of the ledger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.backfill.kafka_ranges import SCHEME, KafkaRange, list_ranges
from pipeline.config.pipeline import Config
from pipeline.errors import ConfigError
from pipeline.records.files.listing import FilePart, left_out_words, list_files

Fragment = FilePart | KafkaRange
"""Both have the properties of `FilePart`."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What inputs name."""

    fragments: Sequence[Fragment]
    """In order, each once."""
    left_out: str = ""
    """A sentence about the files of folders that are not read; empty where there are none."""

    @property
    def parts(self) -> list[FilePart]:
        """The fragments that are parts of files."""
        return [fragment for fragment in self.fragments if isinstance(fragment, FilePart)]


def list_inputs(
    inputs: Sequence[str], config: Config | None = None, on_file: Callable[[int], None] = lambda _done: None
) -> Inputs:
    """Lists files, folders, globs and Kafka ranges; only the latter need `config`.

    Raises ConfigError and EnvironmentFault like `list_files` and `list_ranges`.
    """
    fragments: dict[str, Fragment] = {}
    left_out: list[str] = []
    for given in inputs:
        if given.startswith(SCHEME):
            if config is None:
                raise ConfigError("a Kafka range needs the pipeline's configuration")
            found: Sequence[Fragment] = list_ranges(given, config.source)
        else:
            listing = list_files([given], on_file)
            found = listing.parts
            left_out.append(left_out_words(listing))
        for fragment in found:
            fragments.setdefault(fragment.name, fragment)
    return Inputs(list(fragments.values()), " ".join(filter(None, left_out)))
