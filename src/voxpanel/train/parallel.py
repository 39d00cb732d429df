"""Several processes, one training: `torchrun` starts them, a `Group` joins them.

The rule is that n processes do what one would. Each takes its share of every
global batch, divides its losses by the counts of the whole batch, and gradients
are summed (not averaged), so the update is that of one process up to the order in
which floats are added. `DistributedDataParallel` averages gradients over processes
instead, which is another update whenever shares hold unequal numbers of rated
clips; it is not used. Random numbers (dropout) are each process's own.

    with start() as group:
        for batch in batches:
            term = mos_loss(model(group.share(batch)), ...)
            term.over(group.sum(term.weight)).backward()
            group.sum_gradients(model.parameters())
            optimizer.step()

Every method but `share` is a meeting: all processes must call it, in the same
order, also one whose share is empty. Alone, a `Group` does nothing at no cost.
CPU tensors travel by gloo, GPU tensors by NCCL.
"""

import gc
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import torch
from torch import Tensor, distributed, nn

from voxpanel.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one training, as one of them sees it.

    rank: this process, from 0.
    size: how many there are.
    local_rank: this process among those of its machine; the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of a list: every `size`-th item.

        >>> Group(rank=1, size=2).share(["a", "b", "c", "d", "e"])
        ['b', 'd']
        """
        return items[self.rank :: self.size]

    def join(self, part: Sequence[Item]) -> list[Item]:
        """Put the parts that `share` made back together, in the list's order, everywhere."""
        parts = self.gather(list(part))
        n_items = sum(map(len, parts))
        return [parts[place % self.size][place // self.size] for place in range(n_items)]

    def gather(self, value: Item) -> list[Item]:
        """Return every process's value, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def agree(self, value: Item) -> Item:
        """Return the first process's value in all of them: one decides, all follow."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over processes of a tensor of one shape; no gradient."""
        total = tensor.detach().clone()
        if self.size > 1:
            distributed.all_reduce(total)
        return total

    def sum_with_own_gradient(self, tensor: Tensor) -> Tensor:
        """Return the sum over processes, its gradient flowing to this process's part.

        For a loss that is not a sum over utterances, such as `losses.balance` of the
        mean gate: each process computes the same value from the whole sum, each has
        the gradient of its own part, and `sum_gradients` makes the whole gradient.
        """
        return self.sum(tensor) + (tensor - tensor.detach())

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each parameter's gradient by its sum over processes, in one message.

        A gradient that this process lacks counts as zeros. One that every process
        lacks stays absent, so that the optimizer skips it here as in one process.
        """
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            return
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in trained
        ]
        present = [float(parameter.grad is not None) for parameter in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        bucket = self.sum(torch.cat([flat, flat.new_tensor(present)]))
        sizes = [parameter.numel() for parameter in trained]
        *summed, n_present = bucket.split([*sizes, len(trained)])
        for parameter, total, n in zip(trained, summed, n_present.tolist(), strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype) if n else None

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def stop(self) -> None:
        """Wait for all, then take the process group down."""
        self.barrier()
        self.leave()

    def leave(self) -> None:
        """Take the process group down without waiting, as after an error."""
        if self.size > 1:
            # Measured with torch 2.13 and gloo: if destroyed without a collection first,
            # about one run in eight ends in SIGABRT though its work is done.
            gc.collect()
            distributed.destroy_process_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; after an error do not wait for the others, whom `torchrun` will end."""
        if kind is None:
            self.stop()
        else:
            self.leave()


def start() -> Group:
    """Join the processes that `torchrun` started; alone without it.

    `torchrun` tells by environment variables. Each process takes the GPU of its
    local rank, if its machine has one for it.

    Raises:
        ConfigError: the variables are there in part, or are no numbers that fit.
    """
    if "WORLD_SIZE" not in os.environ:
        return Group()
    size, rank, local_rank = map(read_count, ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    if not rank < size:
        raise ConfigError(
            f"environment: RANK is {rank} and WORLD_SIZE is {size}; ranks are 0 to "
            "WORLD_SIZE - 1, let torchrun set both"
        )
    if size > 1:
        if local_rank < torch.cuda.device_count():
            torch.cuda.set_device(local_rank)
        distributed.init_process_group(backend())
    return Group(rank, size, local_rank)


def backend() -> str:
    """Return what carries the messages: NCCL for GPU tensors if it can, gloo for the rest."""
    if torch.cuda.is_available() and distributed.is_nccl_available():
        return "cpu:gloo,cuda:nccl"
    return "gloo"


def read_count(name: str) -> int:
    """Read a number that `torchrun` sets in the environment."""
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise ConfigError(
            f"environment: WORLD_SIZE is set and {name} is {text!r}, expected a number; "
            "start several processes by torchrun, or unset WORLD_SIZE"
        )
    return int(text)
