"""A density over token sequences, one token at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.model.distributions.folding import folded
from lowerbound.noise import Noise

TokenNetwork = Callable[[Tensor, Tensor], Tensor]


class AutoregressiveTokens(Distribution):
    """p(x) = prod_t p(x_t | x_<t, features).

    Args:
        features: (*batch, F), what the sequence is conditioned on.
        network: causal; (tokens (N, T), features (N, F)) -> logits (N, T, K), where those at t depend on x_<t only.
        length: T.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, features: Tensor, network: TokenNetwork, length: int, validate_args: bool | None = None) -> None:
        self.features, self.network, self.length = features, network, length
        super().__init__(features.shape[:-1], torch.Size([length]), validate_args=validate_args)

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits of each token given those before it: tokens (*batch, T) -> (*batch, T, K)."""
        batch = torch.broadcast_shapes(self.batch_shape, tokens.shape[:-1])
        flat = self.network(folded(tokens, batch), folded(self.features, batch))
        return flat.reshape(*batch, self.length, flat.shape[-1])

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.logits(value).float(), dim=-1)
        index = value.expand(log_p.shape[:-1]).long().unsqueeze(-1)
        return log_p.gather(-1, index).squeeze(-1).sum(dim=-1)

    def generate(self, batch: torch.Size, gumbel: Callable[[int, int], Tensor] | None) -> Tensor:
        """Tokens (*batch, T): greedy, or exact draws by the Gumbel trick with noise (step, K) -> (*batch, K)."""
        tokens = torch.zeros(*batch, self.length, dtype=torch.long, device=self.features.device)
        for step in range(self.length):
            logits = self.logits(tokens)[..., step, :]
            if gumbel is not None:
                logits = logits + gumbel(step, logits.shape[-1])
            tokens[..., step] = logits.argmax(dim=-1)
        return tokens


tree.register(AutoregressiveTokens, {"features": "features"}, ["network", "length"])


@tree.point.register
def _point_tokens(distribution: AutoregressiveTokens) -> Tensor:
    """The greedy sequence: the most probable token at each step (not the most probable sequence)."""
    return distribution.generate(distribution.batch_shape, None)


@tree.draw_row(AutoregressiveTokens)
def _draw_tokens(
    distribution: AutoregressiveTokens, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    batch = torch.Size([samples, noise.rows])
    tokens = distribution.generate(batch, lambda step, k: noise.child(f"token{step}").gumbel(samples, (k,)))
    return tokens, distribution.log_prob(tokens)
