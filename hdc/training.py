"""Training: the step, the epoch and the loop, with everything per step inside the compiled program."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from hdc import cost, networks, ops
from hdc.config import Config, OptimConfig
from hdc.data.dataset import IGNORE, Dataset
from hdc.errors import InputError
from hdc.networks import crop

_SECONDS_PER_CALL = 1.0


class NonFiniteLoss(FloatingPointError):
    """The loss became infinite or not a number."""

    def __init__(self, seed: int, step: int, loss: float):
        super().__init__(f"the loss of seed {seed} became {loss} at step {step}")
        self.seed, self.step = seed, step


@dataclass(frozen=True)
class Step:
    """A compiled training step, to be measured.

    Attributes:
        take: take one step and wait for its end.
        bytes: its arguments, results and temporary arrays as XLA plans them, the training split apart.
            What a convolution of our own allocates for itself is not seen by XLA and not counted.
    """

    take: Callable[[], None]
    bytes: int


@dataclass(frozen=True)
class Epoch:
    """One epoch of one seed, just finished.

    Attributes:
        seed: whose epoch it is.
        number: counted from 1.
        step: steps taken so far.
        seconds: wall time of the epoch's steps, without compiling; of seeds trained together, its share.
        loss, accuracy: means over the epoch's training batches, as seen while training.
        state: the model's state, to merge with `Trainer.graph`.
    """

    seed: int
    number: int
    step: int
    seconds: float
    loss: float
    accuracy: float
    state: nnx.State


class Trainer:
    """A configuration bound to its data set: compiles once, then trains any number of seeds.

    The training images stay on the device as uint8; the batch is gathered, flipped and
    normalised inside the compiled step.

    Attributes:
        abstract: the model in evaluation (no dropout, running statistics), shapes in place of values.
        graph: its graph definition, to merge with an epoch's state.
        cost: of one image's forward pass.
        normalise: uint8 images to the network's input, by the training split's channel means
            and standard deviations.
        steps_per_epoch: full batches in the training split; an epoch's order is new each time, and
            what does not fill a batch waits for the next.

    Raises:
        InputError: where configuration and data do not fit one another, before anything is trained.
    """

    def __init__(self, config: Config, dataset: Dataset):
        self.config, self.dataset = config, dataset
        batch = config.train.batch_size
        self.steps_per_epoch = len(dataset.train) // batch
        if self.steps_per_epoch == 0:
            raise InputError(
                f"train.batch_size={batch} is larger than the {len(dataset.train)} training images of "
                f"{dataset.name}"
            )
        self.normalise = _normaliser(dataset.train.images)
        self._optimizer = optimizer(config.optim, config.train.epochs * self.steps_per_epoch)
        # Shapes only: a network that does not fit the images is refused here, in milliseconds.
        self.abstract = nnx.eval_shape(lambda: _evaluation(self._model(0)))
        self.graph = nnx.graphdef(self.abstract)
        _refuse_without_labels(self.abstract, dataset)
        self.cost = cost.per_image(self.abstract, dataset.image_shape)
        self._programs: dict[int, _Programs] = {}  # by how many seeds they train

    def _model(self, seed: int) -> nnx.Module:
        return networks.build(
            self.config.net,
            self.config.dilation,
            image_shape=self.dataset.image_shape,
            classes=len(self.dataset.classes),
            task=self.dataset.task,
            rngs=nnx.Rngs(params=seed, dropout=seed + 1),
        )

    def fit(self, seeds: Sequence[int]) -> Iterator[Epoch]:
        """Train each seed from its start, yielding after every epoch of each.

        One after the other on a CPU, which one seed keeps busy, and side by side elsewhere. The same
        configuration and seed give the same parameters to the bit on the same machine with the same number of
        CPU cores.

        Raises:
            NonFiniteLoss: naming the first step whose loss was not finite.
        """
        if jax.default_backend() == "cpu":
            for seed in seeds:
                yield from self._fit([seed])
        else:
            yield from self._fit(seeds)

    def step_program(self) -> Step:
        """The step that `fit` takes for one seed, compiled, from the start of its first epoch."""
        seed = self.config.seeds[0]
        state, key = nnx.split(self._start(seed))[1], jax.random.key(seed)
        programs = self._compile(state, key, 1)
        kept = programs.begin(state, key)

        def take() -> None:
            nonlocal kept
            carry, order = kept
            kept = jax.block_until_ready(programs.proceed(carry, order, 0, 1)), order

        used = programs.steps.memory_analysis()
        assert used is not None  # XLA plans ahead on CPU, GPU and TPU
        split = self.dataset.train.images.nbytes + self.dataset.train.labels.nbytes
        planned = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
        return Step(take, planned - split)

    def _fit(self, seeds: Sequence[int]) -> Iterator[Epoch]:
        starts = [nnx.split(self._start(seed))[1] for seed in seeds]
        state = _together(starts)
        for number in range(1, self.config.train.epochs + 1):
            keys = _together([jax.random.fold_in(jax.random.key(seed), number) for seed in seeds])
            state, losses, hits, seconds = self._epoch(state, keys, len(seeds))
            losses, hits = (np.asarray(values).reshape(-1, len(seeds)) for values in (losses, hits))
            step = number * self.steps_per_epoch
            for place, seed in enumerate(seeds):
                bad = np.flatnonzero(~np.isfinite(losses[:, place]))
                if len(bad):
                    first = int(bad[0])
                    at = step - self.steps_per_epoch + first + 1
                    raise NonFiniteLoss(seed, at, float(losses[first, place]))
                loss, accuracy = float(np.mean(losses[:, place])), float(np.mean(hits[:, place]))
                own = state if len(seeds) == 1 else jax.tree.map(lambda leaf, p=place: leaf[p], state)
                yield Epoch(seed, number, step, seconds / len(seeds), loss, accuracy, own[0])

    def _epoch(self, state: nnx.State, key: Array, seeds: int) -> tuple[nnx.State, Array, Array, float]:
        """One epoch: `(state, losses, hits, seconds)`, the two `[steps]` or `[steps, seeds]`."""
        if seeds not in self._programs:
            self._programs[seeds] = self._compile(state, key, seeds)
        programs = self._programs[seeds]
        begun = time.perf_counter()
        carry, order = programs.begin(state, key)
        start, length = 0, 1
        while start < self.steps_per_epoch:
            # In calls of at most a second or so, so that Ctrl-C is heard.
            stop = min(start + length, self.steps_per_epoch)
            before = time.perf_counter()
            carry = jax.block_until_ready(programs.proceed(carry, order, start, stop))
            if time.perf_counter() - before < _SECONDS_PER_CALL / 2:
                length *= 2
            start = stop
        return *carry, time.perf_counter() - begun

    def _start(self, seed: int) -> tuple[nnx.Module, nnx.Optimizer]:
        model = self._model(seed)
        return model, nnx.Optimizer(model, self._optimizer, wrt=nnx.Param)

    def _compile(self, state: nnx.State, key: Array, seeds: int) -> "_Programs":
        dataset, batch, steps = self.dataset, self.config.train.batch_size, self.steps_per_epoch
        images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
        graph = nnx.graphdef(nnx.eval_shape(lambda: self._start(0)))
        flips, normalise, ignores = self.config.data.flips, self.normalise, dataset.train.ignores
        shape = (steps,) if seeds == 1 else (steps, seeds)

        def step(state: nnx.State, order: Array, key: Array, index: Array, images: Array, labels: Array):
            model, optimizer = nnx.merge(graph, state)
            chosen = lax.dynamic_slice(order, (index * batch,), (batch,))
            x, y = _flipped(images[chosen], labels[chosen], flips, jax.random.fold_in(key, index))

            def objective(model: nnx.Module) -> tuple[Array, Array]:
                logits = model(normalise(x))  # type: ignore[operator]
                truth = crop(y, *logits.shape[1:3]) if y.ndim > 1 else y
                if not ignores:
                    losses = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
                    return losses.mean(), jnp.mean(jnp.argmax(logits, axis=-1) == truth)
                return _over_counted(logits, truth)

            (loss, hits), gradients = nnx.value_and_grad(objective, has_aux=True)(model)
            optimizer.update(model, gradients)
            return nnx.state((model, optimizer)), loss, hits

        def shuffled(key: Array) -> tuple[Array, Array]:
            order_key, flip_key = jax.random.split(key)
            return jax.random.permutation(order_key, len(dataset.train)).astype(jnp.int32), flip_key

        if seeds > 1:
            step = jax.vmap(step, in_axes=(0, 0, 0, None, None, None))
            shuffled = jax.vmap(shuffled)

        def begin(state: nnx.State, key: Array):
            return (state, jnp.zeros(shape), jnp.zeros(shape)), shuffled(key)

        def proceed(index: Array, carry: tuple, data: tuple) -> tuple:
            (state, losses, hits), (order, key, images, labels) = carry, data
            state, loss, hit = step(state, order, key, index, images, labels)
            return state, losses.at[index].set(loss), hits.at[index].set(hit)

        def proceed_to(start: Array, stop: Array, carry: tuple, data: tuple) -> tuple:
            return lax.fori_loop(start, stop, lambda index, carry: proceed(index, carry, data), carry)

        first = jax.jit(begin).lower(state, key).compile()
        carry, order = first(state, key)
        some, index = (*order, images, labels), jnp.int32(0)
        in_one = ops.fast_in_loops()
        if in_one:
            program = jax.jit(proceed_to).lower(index, index, carry, some).compile()
        else:
            program = jax.jit(proceed).lower(index, carry, some).compile()

        def steps_of(carry: tuple, order: tuple, start: int, stop: int) -> tuple:
            data = (*order, images, labels)
            if in_one:
                return program(np.int32(start), np.int32(stop), carry, data)
            for index in range(start, stop):
                carry = program(np.int32(index), carry, data)
            return carry

        return _Programs(first, steps_of, program)


@dataclass(frozen=True)
class _Programs:
    """An epoch, compiled.

    Attributes:
        begin: its beginning, `(state, key) -> (carry, order)`; a carry is `(state, losses, hits)`.
        proceed: any steps of it, `(carry, order, start, stop) -> carry`.
        steps: the compiled program behind these.
    """

    begin: Callable
    proceed: Callable
    steps: jax.stages.Compiled


def _over_counted(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Mean cross-entropy and accuracy over the pixels whose label is not `IGNORE`; 0 where there are none."""
    counted = labels != IGNORE
    count = jnp.maximum(jnp.sum(counted), 1)
    # Any class will do in place of IGNORE, for which the loss and its gradient are not defined.
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counted, labels, 0))
    hits = (jnp.argmax(logits, axis=-1) == labels) & counted
    return jnp.sum(losses, where=counted) / count, jnp.sum(hits) / count


def _refuse_without_labels(model: nnx.Module, dataset: Dataset) -> None:
    """VALID layers look at the centre of the maps alone, where there may be no label."""
    splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
    if not any(split.ignores for split in splits.values()):
        return
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32)
    _, height, width, _ = nnx.eval_shape(lambda model, image: model(image), model, image).shape
    for name, split in splits.items():
        if (crop(split.labels, height, width) == IGNORE).all():
            raise InputError(
                f"net.padding=VALID with these schedule.rates leaves the central {height} x {width} pixels, "
                f"none of which has a label in the {name} split of {dataset.name}"
            )


def _together(trees: Sequence[Any]) -> Any:
    """Several of the same form as one, stacked along a new first axis; a single one as it is."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The optax transformation for a run of `steps` steps.

    Clipping by the global norm comes first; weight decay holds for kernels alone (arrays of two
    axes or more). The learning rate rises linearly over `warmup_steps` from one step's share.

    Raises:
        InputError: where the warm-up is not shorter than the run.
    """
    warmup, peak = config.warmup_steps, config.learning_rate
    if warmup >= steps:
        raise InputError(f"optim.warmup_steps={warmup} must be fewer than the run's {steps} steps")
    after = (
        optax.cosine_decay_schedule(peak, steps - warmup)
        if config.decay == "cosine"
        else optax.constant_schedule(peak)
    )
    rate = after
    if warmup:
        rate = optax.join_schedules(
            [optax.linear_schedule(peak / warmup, peak, warmup - 1 or 1), after], [warmup]
        )
    clip = optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
    match config.name:
        case "adamw":
            return optax.chain(clip, optax.adamw(rate, weight_decay=config.weight_decay, mask=_kernels))
        case "sgd":
            decay = optax.add_decayed_weights(config.weight_decay, mask=_kernels)
            return optax.chain(clip, decay, optax.sgd(rate, momentum=config.momentum))
        case name:
            raise InputError(f"unknown optimizer {name!r}")


def _kernels(parameters: nnx.State) -> nnx.State:
    return jax.tree.map(lambda value: value.ndim > 1, parameters)


def _evaluation(model: nnx.Module) -> nnx.Module:
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def _normaliser(images: np.ndarray) -> Callable[[Array], Array]:
    """uint8 images to float32 with the mean 0 and the standard deviation 1 of `images`, per channel."""
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[-1])]
    values = np.arange(256)
    mean = np.array([np.average(values, weights=count) for count in counts])
    variance = [np.average((values - m) ** 2, weights=count) for m, count in zip(mean, counts, strict=True)]
    offset = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    scale = jnp.asarray(1 / np.sqrt(np.maximum(variance, 1.0)), jnp.float32).reshape(1, 1, 1, -1)
    return lambda x: (jnp.asarray(x).astype(jnp.float32) - offset) * scale


def _flipped(images: Array, labels: Array, flips: tuple[str, ...], key: Array) -> tuple[Array, Array]:
    """Each image mirrored with probability 1/2 per axis of `flips`, its label map with it."""
    for flip, flip_key in zip(flips, jax.random.split(key, max(1, len(flips))), strict=False):
        axis = 2 if flip == "horizontal" else 1
        mirror = jax.random.bernoulli(flip_key, shape=(len(images),))
        images = jnp.where(mirror[:, None, None, None], jnp.flip(images, axis), images)
        if labels.ndim > 1:
            labels = jnp.where(mirror[:, None, None], jnp.flip(labels, axis), labels)
    return images, labels
