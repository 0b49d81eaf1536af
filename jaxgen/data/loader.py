"""Gives endless shuffled batches for training, which resume at any batch.

The order of a source is one endless row of positions: epoch e holds positions e*n to (e+1)*n - 1 in the order of a
permutation that depends on the seed, the source's name in the config and e alone. Global batch b is positions
b*B to (b+1)*B - 1, for any number of processes, so batches run across the ends of epochs and no example is
dropped. Grain sees one random-access dataset whose elements are whole batches: it prefetches them in threads, and
in worker processes where asked, without a cost per example.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain.python as grain
import numpy as np
from absl import flags

from jaxgen.data.source import Source
from jaxgen.errors import UserError

HostBatch = dict[str, np.ndarray]  # arrays with a leading batch axis, not on a device yet
ENDLESS = 1 << 60  # the number of batches that Grain is told


class Loader(Iterator[HostBatch]):
    """The loader is an endless iterator of this process's share of each global batch.

    Args:
      sources: the sources by name; entries of the source named "" keep their names, others are prefixed `<name>_`.
      batch_size: examples of each source in a *global* batch.
      seed: seed of the shuffling, 0 or more.
      process_index, process_count: which share of each global batch this is; shares are consecutive, so all
        processes' batches concatenated are the batch of a single process.
      workers: extra processes that read ahead; useful for streamed sources whose decoding needs the interpreter.
        Sources in memory are gathered in threads of this process in any case.
      transform: applied to each batch (strings still in it) on the host, such as a tokeniser; its result must be
        a function of the batch alone, and picklable with `workers`.

    Batches are dicts of numeric arrays; strings that `transform` leaves are dropped.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        batch_size: int,
        seed: int,
        *,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 0,
        transform: Callable[[HostBatch], HostBatch] | None = None,
    ):
        if not sources:
            raise UserError("A loader needs at least one data source.")
        if batch_size < 1 or batch_size % process_count:
            raise UserError(
                f"config.train.batch_size is {batch_size}; it must be a positive multiple of the number of "
                f"processes, {process_count}."
            )
        if not 0 <= process_index < process_count:
            raise UserError(f"Process {process_index} is not one of {process_count}.")
        if seed < 0:
            raise UserError(f"The data's seed is {seed}; it must be 0 or more.")
        self._make = functools.partial(
            _Batches, dict(sources), batch_size, seed, process_index, process_count, transform
        )
        in_memory = all(source.arrays is not None for source in sources.values())
        self._workers = 0 if in_memory else workers
        # A batch from memory takes microseconds, so one thread suffices; more would compete for the interpreter.
        self._threads = 1 if in_memory else min(8, 2 * (os.cpu_count() or 1))
        self._batch_size = batch_size
        self._identity = {
            "seed": seed,
            "sources": {key: f"{s.split} of {len(s)} examples" for key, s in sorted(sources.items())},
        }
        self._examples = 0
        self._iterator: grain.DatasetIterator | None = None

    @property
    def examples(self) -> int:
        """Returns the number of examples of each source in the global batches returned so far."""
        return self._examples

    def __next__(self) -> HostBatch:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._examples += self._batch_size
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns, in plain JSON types, what `set_state` needs to continue after the batches *returned* so far.

        The state is the same in every process, and does not depend on the number of processes.
        """
        return {"examples": self._examples, **self._identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`; raises UserError if that is of another seed or of other data."""
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise UserError(
                    f"The checkpoint's data {key} is {state.get(key)!r} but this run's is {mine!r}; resume with the "
                    "same data, or start a new workdir."
                )
        self.close()
        self._examples = int(state["examples"])

    def close(self) -> None:
        """Stops reading ahead; the next `next()` starts again where the last one ended."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> grain.DatasetIterator:
        dataset = grain.MapDataset.source(self._make(start=self._examples))
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=max(4, self._threads))
        stream = dataset.to_iter_dataset(options)
        if self._workers:
            # Grain hands absl's flags to its workers and refuses unparsed ones, as a notebook's are.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        return iter(stream)


class _Batches:
    """Gives random access to this process's share of batch `index`, counted from the position `start`."""

    def __init__(self, sources, batch_size, seed, process_index, process_count, transform, *, start):
        self.sources = sources
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.share = batch_size // process_count
        self.transform = transform
        self.start = start

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> HostBatch:
        first = self.start + index * self.batch_size + self.process_index * self.share
        batch = {}
        for name, source in self.sources.items():
            indices = _at_positions(self.seed, name, len(source), first, self.share)
            epochs = (first + np.arange(self.share)) // len(source)
            seeds = [(self.seed, zlib.crc32(name.encode()), int(epoch)) for epoch in epochs]
            for key, values in source.draw(indices, seeds).items():
                batch[f"{name}_{key}" if name else key] = values
        if self.transform is not None:
            batch = self.transform(batch)
        return {key: values for key, values in batch.items() if values.dtype.kind in "biuf"}


def _at_positions(seed: int, name: str, length: int, first: int, count: int) -> np.ndarray:
    """Returns the indices of the examples at positions first .. first + count - 1 of the endless sequence."""
    pieces = []
    position, end = first, first + count
    while position < end:
        epoch, offset = divmod(position, length)
        piece = permutation(seed, name, epoch, length)[offset : offset + end - position]
        pieces.append(piece)
        position += len(piece)
    return np.concatenate(pieces)


@functools.lru_cache(maxsize=8)
def permutation(seed: int, name: str, epoch: int, length: int) -> np.ndarray:
    """The order of one epoch, [length]; read-only, as it is shared."""
    # Raw 64-bit draws: numpy promises their stream for ever, that of `permutation` it does not.
    words = np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(name.encode()), epoch])).random_raw(length)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order
