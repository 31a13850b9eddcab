import json

import numpy as np
import pytest
import torch

from graph_transformer.ranking.fusion import LIMIT, Fusion, FusionConfig


def fusion(members: int = 2, features: tuple[str, ...] = ("walk", "tower")) -> Fusion:
    torch.manual_seed(0)
    return Fusion(FusionConfig(features, (1.0, 2.0), (0.5, 2.0), width=4, members=members)).eval()


def test_members_answer_together() -> None:
    """The score is the mean of what the members say, and they are not the same."""
    own, line = fusion(3), torch.randn(5, 2)

    said = own.members(line)

    assert said.shape == (3, 5)
    assert torch.allclose(own(line), said.mean(dim=0))
    assert (said[0] - said[1]).abs().max() > 1e-4


def test_a_feature_beyond_all_measure_says_no_more() -> None:
    """Features count in spreads from their mean, up to a limit on both sides."""
    own = fusion()
    edge = torch.tensor([[1.0 + LIMIT * 0.5, 2.0]])

    assert torch.equal(own(edge), own(edge + torch.tensor([[1e6, 0.0]])))
    assert not torch.equal(own(edge), own(edge - torch.tensor([[0.1, 0.0]])))


def test_a_fusion_comes_back_from_plain_values() -> None:
    """Built anew from JSON with its weights, it gives the same scores."""
    own, line = fusion(), torch.randn(7, 2)
    built = Fusion.from_dict(json.loads(json.dumps(own.to_dict())))
    built.load_state_dict(own.state_dict())

    assert built.config == own.config
    assert np.array_equal(built.eval()(line).detach().numpy(), own(line).detach().numpy())


@pytest.mark.parametrize(("members", "names"), [(0, ("a", "b")), (17, ("a", "b")), (1, ("a",))])
def test_what_does_not_fit_is_refused(members: int, names: tuple[str, ...]) -> None:
    """No members, too many, or names that are not as many as means."""
    with pytest.raises(ValueError, match=r"needed|members"):
        fusion(members, names)
