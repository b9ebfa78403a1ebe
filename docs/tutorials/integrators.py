"""A lazy network followed to all margins by the implicit integrator, without the command line."""

import functools

import torch
from torch import nn

from lazy_lightning.flow import MarginsMet, MomentumFlow
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import ObjectiveClosure
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.losses import build_loss

x = torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
y = x[:, 0].sign()
members = InitialMembers(functools.partial(FC, width=30, depth=2), seeds=[0], input_shape=(8,), num_outputs=1)
centering = Centering(torch.tensor([10.0], dtype=torch.float64))
f0 = raw_outputs(members.network, members.w0, x, {})
objective = Objective(members.network, build_loss("softhinge(20)"), centering, x, y, f0, {})

w = nn.Parameter(members.w0.clone())
flow = MomentumFlow([w], members=1, integrator="implicit", tol=1e-3, events=[MarginsMet()], steps=50)
closure = ObjectiveClosure(w, objective, flow)
while not flow.started or any(flow.clock().running):
    flow.step(closure)
print(flow.reasons, int(flow.flow_state.tried))
