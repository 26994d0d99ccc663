"""How a run's seeds and batches are laid over the devices of one or several processes."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hdc.errors import InputError

_SEEDS, _BATCH = "seeds", "batch"


@dataclass(frozen=True)
class Layout:
    """Seeds trained together on the first `across * batch` devices, which form a grid.

    The arrays of several seeds are stacked along a new first axis; a single seed has no such axis.

    Attributes:
        seeds: their number.
        across: the number of devices that the seeds are divided over.
        batch: the number of devices that each batch is divided over.
    """

    seeds: int
    across: int
    batch: int

    @cached_property
    def mesh(self) -> Mesh | None:
        """The grid; None for one device, so that its programs are those of a machine with one device."""
        count = self.across * self.batch
        if count == 1:
            return None
        # As many of each process as possible, those of one process side by side.
        processes = (jax.local_devices(process_index=n) for n in range(jax.process_count()))
        taken = [device for place in zip_longest(*processes) for device in place if device][:count]
        taken.sort(key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(taken).reshape(self.across, self.batch), (_SEEDS, _BATCH))

    @property
    def own(self) -> NamedSharding | None:
        """The sharding of arrays that differ by seed; None for one device."""
        return self._sharding(PartitionSpec(_SEEDS) if self.seeds > 1 else PartitionSpec())

    def put(self, arrays: Any) -> Any:
        """Put arrays that differ by seed on the devices."""
        return arrays if self.mesh is None else _put(arrays, self.own)

    def everywhere(self, arrays: Any) -> Any:
        """Put a copy of the arrays on every device."""
        return _put(arrays, self._sharding(PartitionSpec()))

    def part_of(self, process: int, rows: int) -> range:
        """Which of the rows of an array a process has to bring, for `joined`."""
        if self.mesh is None:
            return range(rows)
        at = [n for n, device in enumerate(self.mesh.devices.flat) if device.process_index == process]
        each = rows // self.mesh.size
        return range(at[0] * each, (at[-1] + 1) * each)

    def joined(self, arrays: Any) -> Any:
        """Put a copy on every device of arrays of which each process brings its part."""
        if jax.process_count() == 1 or self.mesh is None:
            return self.everywhere(arrays)
        divided = self._sharding(PartitionSpec((_SEEDS, _BATCH)))
        parts = jax.tree.map(lambda part: jax.make_array_from_process_local_data(divided, part), arrays)
        return jax.jit(_same, out_shardings=self._sharding(PartitionSpec()))(parts)

    def on_one(self, arrays: Any) -> Any:
        """Bring arrays that differ by seed to the first device of this process."""
        if self.mesh is None:
            return arrays
        whole = jax.jit(_same, out_shardings=self._sharding(PartitionSpec()))(arrays)
        return jax.tree.map(lambda array: array.addressable_data(0), whole)

    def tracing(self) -> AbstractContextManager:
        """The context to trace a program in, so that XLA divides its batches over the devices."""
        return nullcontext() if self.mesh is None or self.batch == 1 else jax.set_mesh(self.mesh)

    def share(self, batch: Any) -> Any:
        """Divide arrays by their first axis; call this within `tracing`."""
        return batch if self.batch == 1 else lax.with_sharding_constraint(batch, PartitionSpec(_BATCH))

    def of_all(self, function: Callable, own: int) -> Callable:
        """Turn a function of one seed into a function of all seeds.

        Args:
            function: to be turned.
            own: how many of its first arguments differ by seed, as all results do; the other arguments are
                shared by all seeds.
        """
        if self.seeds == 1:
            return function
        here = self.seeds // self.across
        one_by_one = here == 1 or jax.default_backend() == "cpu"

        def local(*arguments: Any) -> Any:
            arrays, common = arguments[:own], arguments[own:]
            if not one_by_one:
                return jax.vmap(lambda *arrays: function(*arrays, *common))(*arrays)
            # Unrolled, and with barriers against fusion: the operations, and so the bits, are those of a
            # single seed.
            each = (jax.tree.map(lambda leaf, n=n: leaf[n], arrays) for n in range(here))
            apart = lax.optimization_barrier
            results = [apart(function(*apart(one), *common)) for one in each]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

        def divided(*arguments: Any) -> Any:
            shard = jax.shard_map(
                local,
                mesh=self.mesh,
                in_specs=(PartitionSpec(_SEEDS),) * own + (PartitionSpec(),) * (len(arguments) - own),
                out_specs=PartitionSpec(_SEEDS),
                axis_names={_SEEDS} if self.batch > 1 else {_SEEDS, _BATCH},
                check_vma=False,
            )
            return shard(*arguments)

        return local if self.mesh is None else divided

    def _sharding(self, spec: PartitionSpec) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, spec)


def start() -> None:
    """Join the tasks of a Slurm step, if it has more than one: each then sees the devices of all tasks.

    Call this in each task before using JAX, and then `Trainer.fit` with the same arguments in each: all tasks
    get the same epochs and snapshots.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        jax.distributed.initialize()


def agreed(number: int) -> int:
    """Broadcast the first process's number to all processes."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def lay_out(asked: int | str, seeds: int, batch_size: int) -> Layout:
    """Divide the seeds over as many devices as possible, and each batch over the devices that are left.

    `auto` uses all devices; on CPUs it does not split batches, so that the bits are those of one device.

    Raises:
        InputError: if there are fewer devices, or if some of several processes would have none to use.
    """
    there = jax.device_count()
    count = there if isinstance(asked, str) else asked
    if count > there:
        raise InputError(f"train.devices={count} is more than there are: {there}")
    across = _divisor(seeds, count)
    seeds_alone = asked == "auto" and jax.default_backend() == "cpu"
    layout = Layout(seeds, across, 1 if seeds_alone else _divisor(batch_size, count // across))
    if 1 < layout.across * layout.batch < jax.process_count():
        raise InputError(
            f"train.devices={asked} lays seeds and batch over {layout.across} x {layout.batch} devices, "
            f"fewer than the {jax.process_count()} processes"
        )
    return layout


def _put(arrays: Any, sharding: NamedSharding | None) -> Any:
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(arrays, sharding)

    def part(array: Any) -> Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(part, arrays)


def _same(arrays: Any) -> Any:
    return arrays


def _divisor(number: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if number % n == 0)
