"""Fields and flows with known answers, shared by the tests of this folder."""

import torch

from cnflow.flow import Adaptive, MLPField, NarrowingFlow, VelocityField

TIGHT = Adaptive("dopri8", rtol=1e-11, atol=1e-11)


class LinearField(VelocityField):
    """v(t, z) = z Aᵀ + b, with A and b drawn from a seed."""

    def __init__(self, seed: int = 0, strength: float = 0.5):
        super().__init__()
        self.seed, self.strength = seed, strength

    def build(self, width):
        generator = torch.Generator().manual_seed(self.seed)
        self.matrix = torch.nn.Parameter(self.strength * torch.randn(width, width, generator=generator).double())
        self.offset = torch.nn.Parameter(torch.randn(width, generator=generator).double())

    def forward(self, t, z):
        return z @ self.matrix.T + self.offset


class WavyField(VelocityField):
    """A nonlinear field without a closed form: sin of a linear map, times a factor that depends on time."""

    def __init__(self, seed: int = 1):
        super().__init__()
        self.seed = seed

    def build(self, width):
        generator = torch.Generator().manual_seed(self.seed)
        self.matrix = torch.nn.Parameter(torch.randn(width, width, generator=generator))

    def forward(self, t, z):
        return torch.sin(z @ self.matrix.T) * (1 + t)


def stir(module, scale=0.5, seed=0):
    """Randomise every parameter, so that nothing is zero by initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise.to(parameter))
    return module


def wild_flow(dim=3, components=4, seed=0, field=None, scale=0.3, **arguments):
    """A float64 flow in which every part acts: frame, field and mixture."""
    torch.manual_seed(seed)
    flow = NarrowingFlow(
        dim,
        field=field or MLPField(hidden=16, depth=2, activation="tanh"),
        components=components,
        evaluation=TIGHT,
        **arguments,
    ).double()
    stir(flow, scale, seed)
    flow.frame.set(
        torch.arange(dim).double(), torch.tensor(1.7).double(), torch.linalg.qr(torch.randn(dim, dim).double())[0]
    )
    return stir(flow.frame, 0.1, seed) and flow
