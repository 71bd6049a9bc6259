import numpy as np
import torch

from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.networks.radiomics import FAR_SD, RadiomicsNet


def network(features: int = 3) -> RadiomicsNet:
    result = RadiomicsNet(RadiomicsConfig(tuple("abcdefgh"[:features])))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        result.mean.copy_(torch.randn(features, generator=generator) * 1e6)
        result.sd.copy_(torch.rand(features, generator=generator) * 1e5 + 1)
        result.weight.copy_(torch.randn(features, generator=generator))
        result.bias.fill_(0.3)
    return result


def test_log_odds_are_those_of_a_logistic_regression():
    model = network()
    x = (model.mean + torch.tensor([[0.5, -2, 1], [100, 0, 0]]) * model.sd).float()
    z = np.array([[0.5, -2, 1], [FAR_SD, 0, 0]])
    expected = z @ model.weight.detach().numpy() + 0.3
    np.testing.assert_allclose(model(x)[:, 0].detach().numpy(), expected, atol=1e-4)
