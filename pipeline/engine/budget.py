"""How many tokens one forward batch may hold: found by measuring, halved when it did not fit, regrown slowly."""

_REGROW_AFTER = 64
"""Full batches that must pass before the budget grows again."""

_REGROW_FACTOR = 1.25
_SMALLEST = 16


class TokenBudget:
    """The token budget of one engine. Used from one thread."""

    def __init__(self, measured: int) -> None:
        self.measured = measured
        """Ceiling: what was found at load or configured."""
        self.tokens = measured
        self.num_failures = 0
        self._passed = 0

    def succeeded(self, num_tokens: int) -> None:
        """Counts a batch that fitted. Small ones prove nothing."""
        if self.tokens >= self.measured or num_tokens * 2 < self.tokens:
            return
        self._passed += 1
        if self._passed >= _REGROW_AFTER:
            self._passed = 0
            self.tokens = min(int(self.tokens * _REGROW_FACTOR) + 1, self.measured)

    def failed(self, num_tokens: int) -> None:
        """Halves: a batch of that many tokens ran out of memory."""
        self.num_failures += 1
        self._passed = 0
        self.tokens = max(min(self.tokens, num_tokens) // 2, _SMALLEST)
