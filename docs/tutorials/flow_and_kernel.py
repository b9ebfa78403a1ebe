"""The flow, the linearised network and the tangent kernel from a notebook, without a Trainer and the command line."""

import torch

import lazy_lightning
from lazy_lightning import LinearizedNetwork, MomentumFlow
from lazy_lightning.flow import TimeReached
from lazy_lightning.ntk import (
    KernelRegression,
    NTKOperator,
    empirical_ntk,
    empirical_ntk_by_layer,
    label_alignment,
    top_eigenpairs,
)

lazy_lightning.flush_denormals()  # before any computation: threads that run already keep their mode
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
x, test_x = torch.randn(40, 3), torch.randn(20, 3)
y = torch.sin(x.sum(dim=1, keepdim=True))
network = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Tanh(), torch.nn.Linear(50, 1))

# The tangent kernel at w0: of samples, between two sets, by layer, and without forming it.
kernel = empirical_ntk(network, None, x, output="trace")  # (40, 40); full, diagonal, trace or mean over outputs
between = empirical_ntk(network, None, test_x, x, output="trace")
parts = empirical_ntk_by_layer(network, None, x, output="trace")
values, vectors, errors = top_eigenpairs(NTKOperator(network, None, x), 3)
print("layers", list(parts), "largest eigenvalues", values.tolist())
print("alignment with the labels", float(label_alignment(kernel, y)))

# Gradient flow of the mean square to t = 5, as an ordinary optimizer; the linearised network is followed likewise.
linear = LinearizedNetwork(network)
start = network(x).detach()
models = {"network": network, "linearised": linear}
for name, model in models.items():
    flow = MomentumFlow(model.parameters(), events=[TimeReached(5.0)], steps=2000)

    def closure(flow=flow, model=model):
        flow.zero_grad()
        loss = (model(x) - y).square().mean() / 2
        loss.backward()
        return loss

    flow.step(closure)
    print(name, "t =", flow.flow_state.t.item(), "loss =", float(closure().detach()))

# The squared loss on a frozen kernel is solved in closed form: what the linearised flow tends to.
solved = KernelRegression(kernel, y[:, 0], between, start=start[:, 0])
difference = solved.train_outputs(5.0) - linear(x).detach()[:, 0]
print("largest difference of the closed form and the linearised flow", float(difference.abs().max()))
