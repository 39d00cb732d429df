"""What `test_parallel.py` runs under torchrun: every method of a Group, results as JSON."""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from voxpanel.model.losses import balance, mos_loss
from voxpanel.model.mixture import Experts, Gate, Mixture
from voxpanel.train.parallel import Group, start

N_CLIPS = 7  # an odd number, so that shares differ


class Network(nn.Module):
    """A mixture; `odd` sees clips 1, 3 and 5 only, which one of two processes holds."""

    def __init__(self) -> None:
        super().__init__()
        self.mixture = Mixture(Gate(5, 3, dim_hidden=4), Experts(5, 3, (6, 4), dropout=0.0))
        self.head = nn.Linear(4, 1)
        self.odd = nn.Linear(5, 1)
        self.unused = nn.Linear(5, 1)

    def forward(self, vectors: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores `[B]` and gate weights `[B, E]`."""
        output = self.mixture(vectors)
        scores = self.head(output.blended)[:, 0]
        odd = clips % 2 == 1
        if odd.any():
            scores = scores + torch.where(odd, self.odd(vectors)[:, 0], 0.0)
        return scores, output.weights


def make_problem() -> tuple[Network, Tensor, Tensor, Tensor]:
    """Return a network, vectors `[B, D]`, targets `[B]` and which are labelled `[B]`."""
    torch.manual_seed(0)
    vectors, targets = torch.randn(N_CLIPS, 5), 1 + 4 * torch.rand(N_CLIPS)
    labelled = torch.tensor([True, False, False, True, False, True, True])
    return Network(), vectors, targets, labelled


def shared_gradients(group: Group, n_clips: int = N_CLIPS) -> list[list[float] | None]:
    """Return each parameter's gradient for a batch that the group shares."""
    network, vectors, targets, labelled = make_problem()
    clips = torch.tensor(group.share(range(n_clips)), dtype=torch.long)
    scores, weights = network(vectors[clips], clips)
    term = mos_loss(scores, targets[clips], labelled[clips])
    mean_gate = group.sum_with_own_gradient(weights.sum(dim=0)) / n_clips
    loss = term.over(group.sum(term.weight)) + balance(mean_gate)
    loss.backward()
    group.sum_gradients(network.parameters())
    return [
        None if parameter.grad is None else parameter.grad.flatten().tolist()
        for parameter in network.parameters()
    ]


def results(group: Group) -> dict[str, object]:
    """Call every method once."""
    own = torch.tensor([1.0, 10.0]) * (group.rank + 1)
    part = group.share(list("abcdefg"))
    return {
        "rank": [group.rank, group.size, group.local_rank, group.is_first],
        "share": part,
        "join": group.join(part),
        "gather": group.gather({"rank": group.rank}),
        "agree": group.agree(f"decided by {group.rank}"),
        "sum": group.sum(own).tolist(),
        "own": own.tolist(),
        "gradients": shared_gradients(group),
        "gradients of one clip": shared_gradients(group, n_clips=1),
    }


def main(folder: Path) -> None:
    """Write this process's results."""
    with start() as group:
        found = results(group)
    (folder / f"{found['rank'][0]}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
