"""The one shape of all links of the chain: `async (Request) -> Response`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from lowerbound.service.serving.deployment import Deployment
from lowerbound.service.serving.payload import Arrays
from lowerbound.service.serving.settings import Settings


def _never() -> bool:
    return False


async def _empty() -> bytes:
    return b""


# Requests and responses are changed on their way, where other records are frozen: copying one at each of six links
# would cost a tenth of the time that a request has.
@dataclass(slots=True)
class Request:
    """What is asked, and what the links found out about it.

    Attributes:
        model, verb: of the path.
        id: known to the client.
        deadline: of the answer, on the monotonic clock.
        accept: forms of the answer, as the client wrote them; `form` is the one that was chosen.
        content_type: of the body, without parameters, in lower case; `boundary` where it is a form.
        query: of the address, undecoded.
        key: that was shown.
        sticky: what keeps a client with one version: what it says, else its key, else its address.
        read: the body, read when it is first needed.
        gone: whether the client went away.
        arrays: the inputs by name, one row each.
        settings: of the verb.
        deployment: that the router assigned.
        operation: that the engine is to do.
        gate: what the gate said: empty before it was asked, "passed", or the code of its refusal.
        pixels: means and variances of the channels of each row, where rows are pictures.
        blamed: whether it was refused because of one row; then it has that row only, which was its number `row`,
            and `found` holds what the engine said of it.
        queue_s, decode_s, compute_s: where the time went.
        batch: the number of the batch that it was computed in.
    """

    model: str
    verb: str
    id: str = ""
    deadline: float = float("inf")
    accept: str = ""
    form: str = ""
    content_type: str = ""
    boundary: str = ""
    digest: str = ""
    query: str = ""
    key: str = ""
    sticky: str = ""
    read: Callable[[], Awaitable[bytes]] = _empty
    gone: Callable[[], bool] = _never
    arrays: Arrays = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    deployment: Deployment | None = None
    operation: str = ""
    gate: str = ""
    pixels: list[list[float]] = field(default_factory=list)
    blamed: bool = False
    row: int = 0
    found: Arrays = field(default_factory=dict)
    queue_s: float = 0.0
    decode_s: float = 0.0
    compute_s: float = 0.0
    batch: int = 0

    @property
    def rows(self) -> int:
        """Rows of the inputs."""
        return len(next(iter(self.arrays.values())))

    @property
    def assigned(self) -> Deployment:
        """The deployment; links behind the gate have one."""
        assert self.deployment is not None
        return self.deployment


@dataclass(slots=True)
class Response:
    """What was found.

    Attributes:
        outputs: by name, one row each.
        frames: outputs that come one after another, instead of `outputs`.
        count: how many frames there are.
    """

    outputs: Arrays = field(default_factory=dict)
    frames: AsyncIterator[Arrays] | None = None
    count: int = 0


Link = Callable[[Request], Awaitable[Response]]
