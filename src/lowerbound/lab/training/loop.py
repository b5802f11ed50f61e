"""The loop: batch -> evidence -> objective -> backward -> average -> clip -> step -> absorb -> average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_activations

from lowerbound.errors import RecipeError
from lowerbound.lab import checkpoint
from lowerbound.lab.data.rows import Batch, Rows
from lowerbound.lab.training.augment import augmentations
from lowerbound.lab.training.average import WeightAverage
from lowerbound.lab.training.blackbox import NonFiniteError, Probe
from lowerbound.lab.training.precision import LossScale, autocast
from lowerbound.lab.training.processes import Processes
from lowerbound.lab.training.rates import rate_factor
from lowerbound.lab.training.sharding import is_shared, shard, share_like, whole
from lowerbound.lab.training.spikes import SpikeGuard
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Statistics
from lowerbound.model.families.family import Family
from lowerbound.model.networks.network import Network
from lowerbound.model.objectives.objective import Needs, Objective, Player
from lowerbound.noise import BatchNoise, derive_seed
from lowerbound.recipe import Training

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Standing:
    """How the run stands on the validation rows.

    Attributes:
        best: the best bound yet, nats.
        since: judgements since then.
    """

    best: float = -1e300  # JSON has no infinity
    since: int = 0


@dataclass(frozen=True)
class Gentleness:
    """How carefully to train after a failure.

    Attributes:
        retries: how often training was rolled back.
        until: steps before this one take a tenth of the learning rates.
    """

    retries: int = 0
    until: int = 0

    def factor(self, step: int) -> float:
        """What learning rates are multiplied by at a step."""
        return 0.1 if step < self.until else 1.0


class Keeper(Protocol):
    """What stands beside the loop, is no part of a step, and has numbers that go with its state."""

    def state(self) -> dict[str, Any]:
        """What to save."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what was saved."""


@dataclass(frozen=True)
class Total:
    """Sums over the micro-batches and processes of one turn: means to record, and statistics to absorb."""

    parts: dict[str, Tensor]
    model: Statistics
    objective: dict[str, Tensor]


class Loop:
    """Trains a model: a function of (recipe, data, step) and nothing else.

    Args:
        model: any family.
        objective: what it is trained for.
        rows: the training data.
        training: the recipe's settings.
        seed: the run's.
        device: where to train.
        processes: who trains.

    Attributes:
        beside: whose numbers are saved and loaded with the loop's, by name.
    """

    def __init__(
        self,
        model: Family,
        objective: Objective,
        rows: Rows,
        training: Training,
        seed: int,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.model, self.objective = model.to(device), objective.to(device)
        if training.shard:
            shard(model, objective, processes, device)
        self.rows, self.training, self.seed, self.device, self.processes = rows, training, seed, device, processes
        self.batch_size = _batch_size(training, len(rows), processes.world)
        if objective.needs.global_batch and training.accumulate > 1:
            raise RecipeError(
                "training.accumulate splits the batch, and this objective looks at all rows of it at once; "
                "leave it at 1, and use several processes for larger batches."
            )
        self.order = rows.order(seed, self.batch_size)
        self.turns = sum(player.turns for player in objective.players)
        self.steps = training.steps or math.ceil((training.epochs or 0) * self.order.per_epoch / self.turns)
        self.step = 0
        self.everyone = [*model.parameters(), *objective.parameters()]
        self.trainable = {id(parameter) for parameter in self.everyone if parameter.requires_grad}
        self.own = {player.role: self._parameters(player.role) for player in objective.players}
        self.optimizers = {player.role: self._optimizer(player) for player in objective.players}
        self.average = WeightAverage(model, training.ema)
        self.scale = LossScale(training.precision)
        self.spikes = {player.role: SpikeGuard(training.spike) for player in objective.players}
        self.augment = augmentations(training.augment, model.data.event)
        self.gentleness, self.standing = Gentleness(), Standing()
        self.beside: dict[str, Keeper] = {}
        for module in model.modules():
            if isinstance(module, Network):
                _prepare_network(module, training)

    def run(self, after_step: Callable[[int, Parts], bool]) -> bool:
        """Train from the current step to the last.

        Args:
            after_step: called with the number of steps taken and the numbers of the last one; True means to stop here.

        Returns:
            Whether the last step was reached.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
        """
        self.model.train()
        while self.step < self.steps:
            parts: Parts = {}
            for number, player in self.schedule(self.step):
                parts |= self.turn(number, player)
            self.average.follow(self.model, self.step)
            self.step += 1
            if after_step(self.step, parts) and self.step < self.steps:
                return False
        return True

    def turn(self, number: int, player: Player) -> Parts:
        """One turn of one player, on batch `number`; returns the numbers to record."""
        batch, noise = self._deal(number)
        with self._only(player.role) as parameters:
            total = self._backward(batch, noise, player)
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = self._reduce(gradients, total)
            if not torch.isfinite(norm) and not self.scale.can_fall:
                raise self._diagnose(number, player, batch, noise)
            taken = self._step(player, parameters, norm)
            if taken:
                self._absorb(player.role, total)
        numbers = {**total.parts, f"gradient_norm_{player.role}": norm}
        return numbers if taken else {**numbers, f"skipped_{player.role}": norm.new_ones(())}

    def look(self, number: int, player: Player) -> dict[int, Tensor]:
        """The gradients of a turn that is not taken, by the identity of the parameter."""
        self.model.train()
        batch, noise = self._deal(number)
        with self._only(player.role) as parameters:
            self._backward(batch, noise, player)
            gradients = {id(p): p.grad / self.scale.value for p in parameters if p.grad is not None}
        self._forget_gradients()
        return gradients

    def _deal(self, number: int) -> tuple[Batch, BatchNoise]:
        """This process's rows of batch `number`, and their noise."""
        seed_hidden(derive_seed(self.seed, "hidden", number, self.processes.rank), self.device)
        span = self.processes.span(self.batch_size)
        noise = BatchNoise(self.seed, number, self.batch_size, span, self.device)
        return self.rows.take(self.order.batch(number)[slice(*span)]).to(self.device), noise

    def state(self) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Any]]:
        """Everything that goes on from here: tensors by file and name, and numbers; asked of all processes at once."""
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": whole(self.model.state_dict()),
            "objective": self.objective.state_dict(),
            "average": whole(self.average.weights),
        }
        for role, optimizer in self.optimizers.items():
            tensors[f"optimizer-{role}"] = whole(checkpoint.optimizer_tensors(optimizer))
        numbers = {
            "loss_scale": self.scale.state(),
            "spikes": {role: guard.state() for role, guard in self.spikes.items()},
            "gentleness": asdict(self.gentleness),
            "standing": asdict(self.standing),
            **{name: keeper.state() for name, keeper in self.beside.items()},
        }
        return tensors, numbers

    def final_weights(self) -> dict[str, Tensor]:
        """The weights to keep, whole; asked of all processes at once."""
        return whole(self.average.final(self.model))

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        own = self.model.state_dict()
        self.model.load_state_dict({name: share_like(value, own[name]) for name, value in tensors["model"].items()})
        self.objective.load_state_dict(tensors["objective"])
        for name, value in tensors["average"].items():
            self.average.weights[name].copy_(share_like(value, self.average.weights[name]))
        for role, optimizer in self.optimizers.items():
            checkpoint.load_optimizer(optimizer, tensors[f"optimizer-{role}"], share_like)
        self.scale.load(numbers["loss_scale"])
        for role, guard in self.spikes.items():
            guard.load(numbers["spikes"][role])
        self.gentleness = Gentleness(**numbers["gentleness"])
        self.standing = Standing(**numbers["standing"])
        for name, keeper in self.beside.items():
            if name in numbers:
                keeper.load(numbers[name])
        self.step = numbers["step"]

    def schedule(self, step: int) -> Iterator[tuple[int, Player]]:
        """The turns of a step, each with the number of its batch."""
        number = step * self.turns
        for player in self.objective.players:
            for _ in range(player.turns):
                yield number, player
                number += 1

    def _backward(self, batch: Batch, noise: BatchNoise, player: Player) -> Total:
        """Gradients of the mean loss over this process's rows, scaled to add up over processes."""
        count = self.training.accumulate
        length = len(batch.raw) // count
        share = 1 / (count * self.processes.world)
        total = Total({}, {}, {})
        for micro in range(count):
            own = noise.narrow(micro * length, length)
            rows = batch.narrow(micro * length, length)
            needs = self.objective.needs_at(self.step)
            with autocast(self.training.precision, self.device):
                evidence = gather_evidence(self.model, self._alter(rows, own), own, needs)
                statistics = evidence.statistics
                if needs.global_batch:
                    evidence, own = evidence.gather(self.processes.collect), own.all_rows()
                loss = self.objective(evidence, self.step, player.role, own.child("objective"))
            (loss.value * (share * self.scale.value)).backward()
            # Gathered evidence is the same everywhere, so its sums are divided before they are added up.
            once = 1 / self.processes.world if needs.global_batch else 1.0
            for name, part in loss.parts.items():
                _accumulate(total.parts, name, part.detach().float() * share)
            for name, value in loss.statistics.items():
                _accumulate(total.objective, name, value * once)
            for part_name, values in statistics.items():
                for name, value in values.items():
                    _accumulate(total.model.setdefault(part_name, {}), name, value)
        return total

    def _reduce(self, gradients: list[Tensor], total: Total) -> Tensor:
        """Add everything up over processes, undo the loss scale, and return the gradient's norm."""
        statistics = [value for values in total.model.values() for value in values.values()]
        own = [gradient for gradient in gradients if not is_shared(gradient)]  # the others are added up already
        self.processes.add([*own, *total.parts.values(), *statistics, *total.objective.values()])
        if self.scale.value != 1:
            torch._foreach_div_(gradients, self.scale.value)
        return gradient_norm(gradients) if gradients else torch.zeros((), device=self.device)

    def _alter(self, batch: Batch, noise: BatchNoise) -> Batch:
        """What is done to rows in training only: augmentation, and hiding of contexts."""
        context, rate = batch.context, self.training.context_dropout
        if context is not None and rate:
            context = context.dropped(rate, noise.child("context"))
        return Batch(self.augment(batch.raw, noise), context)

    def _diagnose(self, number: int, player: Player, batch: Batch, noise: BatchNoise) -> NonFiniteError:
        """Take the turn again with a probe at every module: what happened, and where first."""
        modules = {name: module for name, module in self.model.named_modules() if name}
        modules |= {f"objective.{name}": module for name, module in self.objective.named_modules() if name}
        self._forget_gradients()
        probe = Probe(modules)
        total = self._backward(batch, noise, player)
        layers = probe.close()
        self._forget_gradients()
        parts = {name: float(value) for name, value in total.parts.items()}
        return NonFiniteError(self.step, number, player.role, parts, batch, layers)

    def _forget_gradients(self) -> None:
        for parameter in self.everyone:
            parameter.grad = None

    def _step(self, player: Player, parameters: list[nn.Parameter], norm: Tensor) -> bool:
        """Clip and step, unless the gradient overflowed or is a spike; returns whether the step was taken."""
        finite = bool(torch.isfinite(norm))
        self.scale.update(finite)
        optimizer = self.optimizers[player.role]
        taken = finite and self.spikes[player.role].allows(float(norm))
        if taken:
            if self.training.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.training.clip, norm)
            factor = rate_factor(self.training, self.step, self.steps) * self.gentleness.factor(self.step)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return taken

    @torch.no_grad()
    def _absorb(self, role: str, total: Total) -> None:
        """Let the parts of a role take in their statistics; at a critic's turn those of the model stay as they are."""
        self.model.absorb({part: values for part, values in total.model.items() if self.model.plays(part, role)})
        self.objective.absorb(total.objective)

    @contextmanager
    def _only(self, role: str) -> Iterator[list[nn.Parameter]]:
        """Let only the parameters of a role have gradients while inside."""
        own = {id(parameter) for parameter in self.own[role]}
        for parameter in self.everyone:
            parameter.requires_grad_(id(parameter) in own)
        try:
            yield self.own[role]
        finally:
            for parameter in self.everyone:
                parameter.requires_grad_(id(parameter) in self.trainable)

    def _parameters(self, role: str) -> list[nn.Parameter]:
        named = self.objective.named_parameters() if role == "critic" else self.model.role_parameters(role)
        return [parameter for _, parameter in named if id(parameter) in self.trainable]

    def _optimizer(self, player: Player) -> torch.optim.Optimizer:
        """The optimiser of a player, with the learning rate of each role."""
        rates = self.training.learning_rates
        parameters = self.own[player.role]
        if not parameters:
            raise RecipeError(
                f"the objective trains `{player.role}`, which has no parameters to train in this model; "
                "choose an objective for the parts that are there."
            )
        role_of = {id(p): role for role in self.model.roles for _, p in self.model.role_parameters(role)}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in parameters:
            role = role_of.get(id(parameter), player.role)
            groups.setdefault(rates.get(role, self.training.learning_rate), []).append(parameter)  # type: ignore[call-overload]
        settings = [{"params": group, "base_lr": rate} for rate, group in groups.items()]
        kind = OPTIMIZERS[self.training.optimizer]
        first, second = self.training.betas
        fused = {"fused": True} if kind is not torch.optim.Adamax else {}
        return kind(
            settings,
            lr=self.training.learning_rate,
            betas=(first, second),
            weight_decay=self.training.weight_decay,
            **fused,
        )


def gather_evidence(model: Family, batch: Batch, noise: BatchNoise, needs: Needs) -> Evidence:
    """The evidence of a batch of raw rows, with what an objective needs."""
    model.preparation.check(batch.raw)
    x = model.preparation.prepare(batch.raw, noise.child("prepare"))
    evidence = model.evidence(x, batch.context, noise.child("evidence"), needs.samples)
    if needs.generated:
        px = model.sample(noise.child("generated"), batch.context)
        evidence = replace(evidence, generated=tree.point(px))
    return evidence


def _prepare_network(network: Network, training: Training) -> None:
    """Compile a network, or let it forget its activations, in place: its parameters keep their names."""
    if training.checkpoint_activations:
        network.forward = partial(checkpoint_activations, network.forward, use_reentrant=False)  # type: ignore[method-assign]
    if training.compile:
        network.compile()


def seed_hidden(seed: int, device: torch.device) -> None:
    """Seed the generators that layers such as dropout draw from behind one's back.

    `torch.manual_seed` would do, but it formats a stack trace for devices that are not there: 0.1 ms a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together; in double precision where single overflows (from 2e19 on)."""
    norms = whole({"norm": torch.stack(list(torch._foreach_norm(gradients)))})["norm"]
    norm = torch.linalg.vector_norm(norms)
    if torch.isfinite(norm):
        return norm
    return whole({"norm": torch.nn.utils.get_total_norm([gradient.double() for gradient in gradients])})["norm"]


def _accumulate(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value.clone()


def _batch_size(training: Training, rows: int, world: int) -> int:
    """The batch size of the recipe, at most the data's, that divides among processes and micro-batches."""
    parts = world * training.accumulate
    size = min(training.batch_size, rows // parts * parts)
    if size == 0 or size % parts:
        raise RecipeError(
            f"training.batch_size is {training.batch_size} with {rows} rows of data, which does not divide among "
            f"{world} processes with {training.accumulate} micro-batches each; choose a multiple of {parts}."
        )
    return size
