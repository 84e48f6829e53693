"""torchvision as an oracle: its own parameter laws, fed with our random numbers."""

import pytest
import torch


@pytest.fixture
def feed(monkeypatch):
    """Returns a function after which torchvision draws the given numbers: a list for floats, a list for places."""

    def feed(floats, places):
        floats, places = iter(floats), iter(places)

        def uniform_(self, low=0.0, high=1.0):
            return self.fill_(float(low) + (float(high) - float(low)) * next(floats))

        def randint(low, high, size):
            return torch.tensor([low + int(next(places) * (high - low))])

        monkeypatch.setattr(torch.Tensor, "uniform_", uniform_)
        monkeypatch.setattr(torch, "randint", randint)

    return feed
