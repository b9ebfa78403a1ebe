"""SharedStarts: by seeds and by weights it is one concept, whose two index tensors fit together."""

import pytest
import torch

from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, ObservableModule
from lazy_lightning.nn.shared_starts import SharedStarts

SEEDS = [3, 5, 3, 4, 5]


def test_seeds_and_weights_agree():
    """Weights that follow from the seed share as the seeds do, the first members in increasing order."""
    weights = torch.tensor(SEEDS, dtype=torch.float64).neg().unsqueeze(1).repeat(1, 3)
    by_seed, by_weight = SharedStarts.of_seeds(SEEDS), SharedStarts.of_weights(weights, {})
    assert by_seed.first.tolist() == by_weight.first.tolist() == [0, 1, 3]
    assert by_seed.own.tolist() == by_weight.own.tolist() == [0, 1, 0, 2, 1]
    assert torch.equal(weights[by_seed.first][by_seed.own], weights)
    assert by_seed.rows({"b": weights})["b"].tolist() == weights[[0, 1, 3]].tolist()


def test_own_buffers_make_all_distinct():
    assert len(SharedStarts.of_weights(torch.zeros(3, 2), {"b": torch.zeros(3, 1)})) == 3


PROMISED = sorted(name for name in dir(ObservableModule) if not name.startswith("_"))
SPLITS = {"test_split", "train_split"}
SET_BY_SETUP_OR_FIT = SPLITS | {"network", "objective", "task", "test_outputs", "unwritten", "w", "w0"}


@pytest.mark.parametrize("kind", [FlowModule, KernelModule, MiniBatchModule])
def test_modules_have_what_observers_may_use(kind):
    options = {} if kind is MiniBatchModule else {"loss": "hinge"}
    module = kind(torch.nn.Identity, **options)
    missing = {name for name in PROMISED if not hasattr(type(module), name) and name not in vars(module)}
    assert missing <= SET_BY_SETUP_OR_FIT
