"""Mean and variance of rows that come in parts (Chan et al. 1979)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean and sum of squared deviations of rows.

    Attributes
    ----------
    count : int
        Number of rows.
    mean, squares : Tensor (d,)
        float64: the mean, and Σ (x − mean)².
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "Moments":
        """Return the moments of rows (n, d)."""
        mean = rows.mean(dim=0)
        return cls(len(rows), mean, (rows - mean).square().sum(dim=0))

    @classmethod
    def unpack(cls, packed: Tensor) -> "Moments":
        """Return the moments that `packed` holds."""
        mean, squares = packed[1:].chunk(2)
        return cls(int(packed[0]), mean, squares)

    @classmethod
    def of_parts(cls, parts: Iterable["Moments"]) -> "Moments":
        """Return the moments of the rows of one or more parts together."""
        return reduce(cls._merged, parts)

    def packed(self) -> Tensor:
        """Return a tensor (1 + 2 d,) that holds the moments."""
        return torch.cat([self.mean.new_tensor([self.count]), self.mean, self.squares])

    def standardized(self, rows: Tensor) -> Tensor:
        """Return (x − mean)/σ of rows (n, d), with the sample's σ; 0 in a column where σ is 0."""
        deviation = (self.squares / max(self.count - 1, 1)).sqrt()
        return torch.where(deviation > 0, (rows - self.mean) / deviation, 0.0)

    def _merged(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        offset = other.mean - self.mean
        mean = self.mean + offset * other.count / count
        squares = self.squares + other.squares + offset.square() * self.count * other.count / count
        return Moments(count, mean, squares)
