"""What a language model is asked about: the tokens that follow a prompt, one after the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Continuation:
    """A prompt and what follows it; all questions about a row share it.

    Attributes:
        ids: Vocabulary ids of both, [p + C].
        prompt: Number of tokens of the prompt, p.
        foils: Per token that follows what it is compared with; None for the runner-up, C of them.
        given: Whether the corpus has it; else the model has said it.
    """

    ids: NDArray[np.int32]
    prompt: int
    foils: tuple[int | None, ...]
    given: bool = True

    def __len__(self) -> int:
        """Number of tokens that follow, C."""
        return len(self.ids) - self.prompt

    @property
    def read(self) -> NDArray[np.intp]:
        """The positions that its tokens are read from, [C]: each the one before a token's own."""
        return np.arange(self.prompt - 1, len(self.ids) - 1)

    @property
    def fed(self) -> NDArray[np.int32]:
        """What the network is given: all but the last, which nothing follows, [p + C - 1]."""
        return self.ids[:-1]


@dataclass(frozen=True)
class Next:
    """A token that follows, and what the model said when it was to come.

    Attributes:
        token: Its id.
        name: Its string.
        foil: Id of what it is compared with: the one given, or the runner-up.
        foil_name: Its string.
        runner_up: Id of the token of the largest logit but its own.
        logit: Its logit.
        foil_logit: That of the foil.
        log_prob: Its log-probability.
        entropy: Of the distribution over all tokens, in nats.
        rank: How many tokens are likelier, and one.
        ends: Whether it is the end token.
        own_foil: Whether the foil is the one given.
    """

    token: int
    name: str
    foil: int
    foil_name: str
    runner_up: int
    logit: float
    foil_logit: float
    log_prob: float
    entropy: float
    rank: int
    ends: bool
    own_foil: bool
