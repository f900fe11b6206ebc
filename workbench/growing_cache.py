"""Keys and values of texts that grow token by token, in buffers with room for more: appending copies nothing else."""

from torch import Tensor
from transformers import Cache, DynamicLayer

KeysValues = list[tuple[Tensor, Tensor]]  # for each block, (B, heads, T, d_head) each

_ROOM = 16  # tokens by which a full buffer grows: growing by one would copy everything at every token


class _GrowingLayer(DynamicLayer):
    """Keys and values of one block."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers does not annotate it
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers, self._length = [keys, values], keys.shape[-2]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all of them."""
        n, n_new = self._length, key_states.shape[-2]
        if self._buffers[0].shape[-2] < n + n_new:
            self._buffers = [_grow(buffer[..., :n, :], n_new + _ROOM) for buffer in self._buffers]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., n : n + n_new, :] = new
        self._length = n + n_new
        keys, values = (buffer[..., : self._length, :] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def _grow(tensor: Tensor, room: int) -> Tensor:
    grown = tensor.new_empty((*tensor.shape[:-2], tensor.shape[-2] + room, tensor.shape[-1]))
    grown[..., : tensor.shape[-2], :] = tensor
    return grown


def growing_cache(keys_values: KeysValues) -> Cache:
    """Return a cache that begins with these keys and values, which it does not change."""
    return Cache(layers=[_GrowingLayer(keys, values) for keys, values in keys_values])


def keys_values_of(cache: Cache) -> KeysValues:
    """Return the keys and values of a cache that has some."""
    # a filled layer has both; those of linear attention, which have neither, are in no model that is supported
    return [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr, misc]
