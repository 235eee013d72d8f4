"""UNPG in a training loop of your own: the loss is an ordinary module that takes features and labels."""

import torch

from unpg.backbones import create_backbone
from unpg.losses import arcface, unpg
from unpg.similarity import Scheduled

CLASSES, DIM, STEPS = 20, 64, 30


def main() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("small_iresnet", dim=DIM, input_size=(32, 32), widths=(8, 8, 16, 16))
    base = arcface(CLASSES, DIM, s=32, m=0.3)
    # ArcFace alone for 10 steps, then with the batch's negatives, weighed to count as much as the classes.
    loss = unpg(base, r=1.5, weight=Scheduled(start=10, then="balanced"))
    optimizer = torch.optim.SGD([*backbone.parameters(), *loss.parameters()], lr=0.05, momentum=0.9)

    prototypes = torch.randn(CLASSES, 3, 32, 32)  # your data loader goes here
    for step in range(STEPS):
        labels = torch.randint(0, CLASSES, (64,))
        images = prototypes[labels] + 0.5 * torch.randn(64, 3, 32, 32)
        out = loss(backbone(images), labels, step=step)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        if step % 10 == 9:
            shares = {name: round(float(value), 3) for name, value in out.statistics.items() if "share" in name}
            print(f"step {step + 1}: loss {float(out.loss.detach()):.2f}, {shares}")


if __name__ == "__main__":
    main()
