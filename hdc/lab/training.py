"""Training: the step, the epoch and the loop. All work of a step is inside a compiled program."""

import dataclasses
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from hdc import cost, ops
from hdc.errors import InputError
from hdc.lab import devices, feed, parts, pretrained
from hdc.lab.augment import augment_of, window
from hdc.lab.config import Config
from hdc.lab.data.dataset import IGNORE, Dataset
from hdc.lab.data.stream import blocks
from hdc.lab.losses import loss_of
from hdc.lab.trained import imagenet, normaliser
from hdc.layers import crop, evaluation
from hdc.registry import Images, Signals, inputs

_SECONDS_PER_CALL = 1.0


class NonFiniteLoss(FloatingPointError):
    """The loss became infinite or not a number."""

    def __init__(self, seed: int, step: int, loss: float):
        super().__init__(f"the loss of seed {seed} became {loss} at step {step}")
        self.seed, self.step = seed, step


@dataclass(frozen=True)
class Step:
    """A compiled training step, for measurements.

    Attributes:
        take: takes one step and waits for its end.
        bytes: of arguments, results and temporary arrays as XLA plans them, without the training split and
            without what the native convolutions allocate themselves.
    """

    take: Callable[[], None]
    bytes: int


@dataclass(frozen=True)
class Snapshot:
    """A point of training; resuming from it gives the same bits.

    Attributes:
        seeds: the seeds trained together; the seeds before them are finished.
        epoch: the current epoch, counted from 1; the number of epochs plus 1 if these seeds are finished.
        step: steps taken in this epoch.
        seconds: wall time of these steps.
        state: model and optimizer; those of several seeds are stacked along a new first axis.
        losses, hits: loss and accuracy (for regression the mean absolute error) of each of the epoch's steps
            so far, `[steps]` or `[seeds, steps]`.
    """

    seeds: tuple[int, ...]
    epoch: int
    step: int
    seconds: float
    state: nnx.State
    losses: Array
    hits: Array

    def about(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON values."""
        return {"seeds": list(self.seeds), "epoch": self.epoch, "step": self.step, "seconds": self.seconds}

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, PRNG keys as their raw numbers."""
        tree = {"state": self.state, "losses": self.losses, "hits": self.hits}
        return {name: np.asarray(_data(leaf)) for name, leaf in _named(tree).items()}


@dataclass(frozen=True)
class Epoch:
    """A finished epoch of one seed.

    Attributes:
        seed: whose epoch it is.
        number: counted from 1.
        step: steps taken so far.
        seconds: wall time of the epoch's steps, without compiling; divided by the seeds trained together.
        loss, accuracy: means over the epoch's training batches, measured during training; for regression,
            `accuracy` is the mean absolute error.
        state: the model's state, to merge with `Trainer.graph`.
        after: the point to resume from once this epoch is recorded; None if the same epoch of another seed,
            trained together with this one, follows.
    """

    seed: int
    number: int
    step: int
    seconds: float
    loss: float
    accuracy: float
    state: nnx.State
    after: Snapshot | None


class Trainer:
    """A configuration and its data set: compiles once, then trains any number of seeds.

    The training images are on the device in their own type, all of them or a window that moves, see
    `hdc.lab.feed`. The compiled step gathers, augments and normalises a batch.

    Attributes:
        streamed: why images are read while training, as a line about it; None if all are kept in memory.
        emulated: what `train.precision=bf16` costs where the device has no such arithmetic, as a line about
            it; else None.
        abstract: the model in evaluation mode, with shapes in place of values.
        graph: its graph definition, to merge with an epoch's state.
        cost: the cost of one image's forward pass.
        pretrained: the weights that every network starts from; None if it starts at random.
        normalise: turns images into the network's input, by the channel means and standard deviations of the
            training split, or of ImageNet where there are pretrained weights.
        steps_per_epoch: full batches in the training split. Each epoch shuffles the images and leaves out
            those that do not fill a batch.

    Raises:
        InputError: if configuration and data do not fit each other.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.streamed = feed.why_streamed(config.train.stream, dataset)
        self.config, self.dataset = config, dataset if self.streamed else dataset.in_memory
        self.emulated = None
        if config.train.precision == "bf16" and jax.default_backend() == "cpu":
            self.emulated = (
                "train.precision=bf16: on a CPU, values are rounded to bfloat16 and computed in float32, so "
                "a step takes 1.05 to 1.3 times as long as with train.precision=float32"
            )
        self.layout(len(config.seeds))
        batch = config.train.batch_size
        self.steps_per_epoch = len(dataset.train) // batch
        if self.steps_per_epoch == 0:
            raise InputError(
                f"train.batch_size={batch} is larger than the {len(dataset.train)} training {dataset.kind} "
                f"of {dataset.name}"
            )
        self._images = inputs(dataset.image_shape, len(dataset.classes), dataset.task)
        weights = parts.weights_file(config)
        self.pretrained = None if weights is None else pretrained.load(weights)
        self.normalise = (normaliser if self.pretrained is None else imagenet)(dataset.train.images)
        # Shapes only: a network that does not fit the images is refused here, in milliseconds.
        self.abstract = nnx.eval_shape(lambda: evaluation(self._model(0)))
        self.graph = nnx.graphdef(self.abstract)
        self._loss = loss_of(config.train, dataset)
        self._window = window(config.data, dataset)
        _refuse_window(config, self.abstract, self._images, self._window)
        augment_of(config.data, dataset)
        _refuse_without_labels(parts.output_shape(config, self.abstract, self._images), dataset)
        self._optimizer = parts.optimizer(config.optim, config.train.epochs * self.steps_per_epoch)
        self.cost = cost.per_image(self.abstract, dataset.image_shape)
        self._programs: dict[int, _Programs] = {}  # by how many seeds they train

    def _model(self, seed: int) -> nnx.Module:
        model = parts.network(self.config, self._images, rngs=nnx.Rngs(params=seed, dropout=seed + 1))
        if self.pretrained is not None:
            self.pretrained.into(model)
        return model

    def start(self, seed: int) -> nnx.State:
        """The state of a seed's network before its first step, in evaluation, to merge with `graph`."""
        return nnx.split(evaluation(self._model(seed)))[1]

    def seen(self, images: np.ndarray) -> np.ndarray:
        """The middle of images, in the size that training sees: of `data.crop`, else all of them."""
        sides = zip(images.shape[1:-1], self._window, strict=True)
        middle = [slice((side - size) // 2, (side - size) // 2 + size) for side, size in sides]
        return images[:, *middle]

    def fit(
        self,
        seeds: Sequence[int],
        *,
        resume: Snapshot | None = None,
        watch: Callable[[Snapshot], None] = lambda _: None,
    ) -> Iterator[Epoch]:
        """Train the seeds and yield each of their epochs.

        A CPU device trains one seed at a time, an accelerator all seeds together. The same configuration and
        seed give bit-identical parameters on the same machine, with the same number of CPU cores and of
        devices that share a batch.

        Args:
            seeds: the seeds to train.
            resume: the point to resume from; None to start at the beginning.
            watch: called with a snapshot about once a second within an epoch.

        Raises:
            NonFiniteLoss: names the first step whose loss was not finite.
        """
        rest = list(seeds)
        if resume is not None:
            rest = rest[rest.index(resume.seeds[-1]) + 1 :]
            yield from self._fit(resume, watch)
        if not rest:
            return
        together = self.layout(len(rest)).across if jax.default_backend() == "cpu" else len(rest)
        for first in range(0, len(rest), together):
            yield from self._fit(self._begin(rest[first : first + together]), watch)

    def layout(self, seeds: int) -> devices.Layout:
        """How `seeds` seeds are laid over the devices.

        Raises:
            InputError: if there are fewer devices than requested.
        """
        return devices.lay_out(self.config.train.devices, seeds, self.config.train.batch_size)

    def snapshot(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Snapshot:
        """Restore a snapshot from its `about()` and `arrays()`.

        Raises:
            ValueError: if they do not fit this configuration.
        """
        seeds, epoch, step = tuple(about["seeds"]), about["epoch"], about["step"]
        planned = list(self.config.seeds)
        at = planned.index(seeds[0]) if seeds and seeds[0] in planned else 0
        if not seeds or list(seeds) != planned[at : at + len(seeds)]:
            raise ValueError(f"its seeds are {list(seeds)}")
        if not (0 <= step < self.steps_per_epoch and 1 <= epoch <= self.config.train.epochs + 1):
            raise ValueError(f"it stands at step {step} of epoch {epoch}")
        start = nnx.eval_shape(lambda: self._begin_tree(seeds))
        named = _named(start)
        if named.keys() != arrays.keys():
            raise ValueError("it is of another network")
        leaves = [_restored(name, leaf, arrays[name]) for name, leaf in named.items()]
        tree = jax.tree.unflatten(jax.tree.structure(start), leaves)
        return Snapshot(seeds, epoch, step, float(about["seconds"]), **tree)

    def step_program(self) -> Step:
        """The step that `fit` takes for one seed, compiled, at the start of the first epoch."""
        seed = self.config.seeds[0]
        state, key = self._begin([seed]).state, jax.random.key(seed)
        programs = self._compile(state, key, devices.lay_out(1, 1, self.config.train.batch_size))
        kept = programs.begin(state, key)

        def take() -> None:
            nonlocal kept
            carry, order = kept
            kept = jax.block_until_ready(programs.proceed(carry, order, 0, 1)), order

        used = programs.steps.memory_analysis()
        assert used is not None  # XLA plans ahead on CPU, GPU and TPU
        planned = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
        return Step(take, planned - programs.fed)

    def _begin(self, seeds: Sequence[int]) -> Snapshot:
        return Snapshot(tuple(seeds), 1, 0, 0.0, **self._begin_tree(seeds))

    def _begin_tree(self, seeds: Sequence[int]) -> dict[str, Any]:
        state = _together([nnx.split(self._start(seed))[1] for seed in seeds])
        shape = self._shape(len(seeds))
        return {"state": state, "losses": jnp.zeros(shape), "hits": jnp.zeros(shape)}

    def _shape(self, seeds: int) -> tuple[int, ...]:
        return (self.steps_per_epoch,) if seeds == 1 else (seeds, self.steps_per_epoch)

    def _fit(self, at: Snapshot, watch: Callable[[Snapshot], None]) -> Iterator[Epoch]:
        seeds, layout = at.seeds, self.layout(len(at.seeds))
        carry = layout.put((at.state, at.losses, at.hits))
        for number in range(at.epoch, self.config.train.epochs + 1):
            end, carry = self._epoch(at, carry, layout, watch)
            at = dataclasses.replace(end, epoch=number + 1, step=0, seconds=0.0)
            losses, hits = (np.asarray(values).reshape(len(seeds), -1) for values in (end.losses, end.hits))
            for place, seed in enumerate(seeds):
                own = end.state
                if len(seeds) > 1:
                    own = jax.tree.map(lambda leaf, place=place: leaf[place], own)
                yield Epoch(
                    seed, number, number * self.steps_per_epoch, end.seconds / len(seeds),
                    loss=float(np.mean(losses[place])),
                    accuracy=float(np.mean(hits[place])),
                    state=own[0],
                    after=at if place == len(seeds) - 1 else None,
                )  # fmt: skip

    def _epoch(
        self, at: Snapshot, carry: tuple, layout: devices.Layout, watch: Callable[[Snapshot], None]
    ) -> tuple[Snapshot, tuple]:
        """Train the rest of an epoch: the snapshot after its last step, and the arrays on the devices."""
        seeds = at.seeds
        key = layout.put(_together([jax.random.fold_in(jax.random.key(seed), at.epoch) for seed in seeds]))
        if len(seeds) not in self._programs:
            self._programs[len(seeds)] = self._compile(carry[0], key, layout)
        programs = self._programs[len(seeds)]
        before = time.perf_counter()
        fresh, order = programs.begin(carry[0], key)
        if not at.step:
            carry = fresh
        seconds = at.seconds + time.perf_counter() - before
        length = 1
        while at.step < self.steps_per_epoch:
            # In calls of about a second at most, between which signals are handled.
            stop = min(at.step + devices.agreed(length), self.steps_per_epoch)
            before = time.perf_counter()
            carry = jax.block_until_ready(programs.proceed(carry, order, at.step, stop))
            elapsed = time.perf_counter() - before
            if elapsed < _SECONDS_PER_CALL / 2:
                length *= 2
            seconds += elapsed
            at = Snapshot(seeds, at.epoch, stop, seconds, *layout.on_one(carry))
            self._refuse_non_finite(at)
            if stop < self.steps_per_epoch:
                watch(at)
        return at, carry

    def _refuse_non_finite(self, at: Snapshot) -> None:
        losses = np.asarray(at.losses).reshape(len(at.seeds), -1)[:, : at.step]
        bad = np.argwhere(~np.isfinite(losses.T))
        if len(bad):
            step, place = (int(index) for index in bad[0])
            taken = (at.epoch - 1) * self.steps_per_epoch + step + 1
            raise NonFiniteLoss(at.seeds[place], taken, float(losses[place, step]))

    def _start(self, seed: int) -> tuple[nnx.Module, nnx.Optimizer]:
        model = self._model(seed)
        return model, nnx.Optimizer(model, self._optimizer, wrt=nnx.Param)

    def _compile(self, state: nnx.State, key: Array, layout: devices.Layout) -> "_Programs":
        dataset, batch = self.dataset, self.config.train.batch_size
        if self.streamed:
            fed = feed.Windows(dataset.train, layout, batch, self.config.train.readers)
        else:
            fed = feed.Whole(dataset.train, layout)
        graph = nnx.graphdef(nnx.eval_shape(lambda: self._start(0)))
        augment, normalise = augment_of(self.config.data, dataset), self.normalise
        shape = self._shape(layout.seeds)
        applied = in_bfloat16 if self.config.train.precision == "bf16" else operator.call

        def step(state: nnx.State, order: Array, key: Array, index: Array, images: Array, labels: Array):
            model, optimizer = nnx.merge(graph, state)
            chosen = lax.dynamic_slice(order, (index * batch,), (batch,))
            x, y = layout.share((images[chosen], labels[chosen]))
            x, y = augment(x, y, jax.random.fold_in(key, index))

            def objective(model: nnx.Module) -> tuple[Array, Array]:
                logits = applied(model, normalise(x))
                truth = crop(y, *logits.shape[1:-1]) if y.ndim > 1 else y
                return self._loss(logits, truth)

            (loss, hits), gradients = nnx.value_and_grad(objective, has_aux=True)(model)
            optimizer.update(model, gradients)
            return nnx.state((model, optimizer)), loss, hits

        def shuffled(key: Array) -> tuple[Array, Array]:
            order_key, flip_key = jax.random.split(key)
            return jax.random.permutation(order_key, len(dataset.train)).astype(jnp.int32), flip_key

        step, shuffled = layout.of_all(step, own=3), layout.of_all(shuffled, own=1)

        def begin(state: nnx.State, key: Array):
            return (state, jnp.zeros(shape), jnp.zeros(shape)), shuffled(key)

        def proceed(index: Array, carry: tuple, data: tuple) -> tuple:
            (state, losses, hits), (order, key, images, labels) = carry, data
            state, loss, hit = step(state, order, key, index, images, labels)
            return state, losses.at[..., index].set(loss), hits.at[..., index].set(hit)

        def proceed_to(start: Array, stop: Array, carry: tuple, data: tuple) -> tuple:
            return lax.fori_loop(start, stop, lambda index, carry: proceed(index, carry, data), carry)

        with layout.tracing(), ops.winograd():
            first = jax.jit(begin, out_shardings=layout.own).lower(state, key).compile()
            carry, order = first(state, key)
            some, index = (*order, *fed.arrays), jnp.int32(0)
            in_one = ops.fast_in_loops()
            function, indices = (proceed_to, (index, index)) if in_one else (proceed, (index,))
            program = jax.jit(function, out_shardings=layout.own).lower(*indices, carry, some).compile()

        def steps_of(carry: tuple, order: tuple, start: int, stop: int) -> tuple:
            before = None
            for first_step, end, data in fed(order, start, stop):
                jax.block_until_ready(before)  # so that no more than two windows wait on the device
                before = carry
                if in_one:
                    carry = program(np.int32(first_step), np.int32(end), carry, data)
                    continue
                for index in range(first_step, end):
                    carry = program(np.int32(index), carry, data)
            return carry

        return _Programs(first, steps_of, program, sum(array.nbytes for array in fed.arrays))


@dataclass(frozen=True)
class _Programs:
    """The compiled programs of an epoch.

    Attributes:
        begin: starts it, `(state, key) -> (carry, order)`; a carry is `(state, losses, hits)`.
        proceed: takes the steps from `start` to `stop`, `(carry, order, start, stop) -> carry`.
        steps: the compiled program behind `proceed`.
        fed: bytes of the images and labels that it is given.
    """

    begin: Callable
    proceed: Callable
    steps: jax.stages.Compiled
    fed: int


def in_bfloat16(model: nnx.Module, x: Array) -> Array:
    """What the model makes of x, computed in bfloat16 from its parameters; its statistics stay in float32."""
    graph, params, others = nnx.split(model, nnx.Param, ...)
    short = nnx.merge(graph, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), others)
    y = short(x.astype(jnp.bfloat16))  # type: ignore[operator]
    nnx.update(model, nnx.state(short, nnx.Not(nnx.Param)))
    return y.astype(jnp.float32)


def _refuse_window(
    config: Config, model: nnx.Module, images: Images | Signals, seen: tuple[int, ...]
) -> None:
    """Some networks take images of one size alone."""
    *sides, channels = images.shape
    if seen == (*sides,):
        return
    try:
        parts.output_shape(config, model, inputs((*seen, channels), images.classes, images.task))
    except Exception as error:  # whatever a network raises
        what = f"images of {' x '.join(map(str, seen))}" if len(seen) == 2 else f"signals of {seen[0]} steps"
        raise InputError(
            f"data.crop={config.data.crop} makes {what}, which net={config.net.name} "
            f"does not take: {next(iter(str(error).splitlines()), '')}"
        ) from None


def _refuse_without_labels(logits: tuple[int, ...], dataset: Dataset) -> None:
    """VALID layers look at the centre of the maps alone, where there may be no label."""
    if not any(split.ignores for split in dataset.splits.values()):
        return
    sides = logits[1:-1]
    for name, split in dataset.splits.items():
        if all((crop(block, *sides) == IGNORE).all() for block in blocks(split.labels)):  # type: ignore[arg-type]
            left = f"{' x '.join(map(str, sides))} {'pixels' if len(sides) == 2 else 'steps'}"
            raise InputError(
                f"net.padding=VALID with these schedule.rates leaves the central {left}, "
                f"none of which has a label in the {name} split of {dataset.name}"
            )


def _together(trees: Sequence[Any]) -> Any:
    """Stack trees of the same structure along a new first axis; a single tree stays as it is."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _named(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _restored(name: str, expected: Any, array: np.ndarray) -> Array:
    found = jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(expected) else jnp.asarray(array)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{name} is {found.dtype}{list(found.shape)}")
    return found
