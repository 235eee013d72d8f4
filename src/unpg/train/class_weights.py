"""Where class weights are in a checkpoint, and which rows of them are this process's."""

from torch import nn

from unpg.heads import FullHead, Head, SampledHead, ShardedHead
from unpg.losses import PairLoss, SumLoss
from unpg.train.state import Split

__all__ = ["heads_of", "shared_rows"]


def heads_of(loss: PairLoss | SumLoss) -> dict[str, Head]:
    """The heads of a loss, by the names of their class weights in a checkpoint."""
    return {
        f"loss/{name}.weight": module
        for name, module in loss.named_modules()
        if isinstance(module, FullHead | ShardedHead | SampledHead)
    }


def shared_rows(loss: nn.Module) -> Split:
    """The tensors of a loss that processes share by rows: weights of sharded heads, and what is kept for each row."""
    found: dict[str, tuple[range, int]] = {}
    for name, head in loss.named_modules():
        if isinstance(head, ShardedHead | SampledHead):
            own = range(head.first * head.centers, head.last * head.centers)
            for tensor, value in head.state_dict().items():
                if value.ndim and len(value) == len(own):
                    found[f"loss/{name}.{tensor}"] = (own, head.num_classes * head.centers)
    return found
