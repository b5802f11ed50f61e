"""Who is served by the canary."""

from __future__ import annotations

import hashlib

from lowerbound.errors import UsageError


def assigned(key: str, salt: str, share: float) -> bool:
    """Whether a key belongs to the share: the same answer always, and who belongs to a share belongs to larger ones.

    Args:
        key: of who asks, such as a user or a session; a request's own id where nothing is sticky.
        salt: of this canary, so that another one takes other keys.
        share: of keys, in [0, 1].

    Raises:
        UsageError: the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"a share of {share} was given; it must be between 0 and 1.")
    secret = hashlib.blake2b(salt.encode()).digest()
    place = hashlib.blake2b(key.encode(errors="surrogatepass"), key=secret, digest_size=8)
    return int.from_bytes(place.digest(), "big") < share * 2**64
