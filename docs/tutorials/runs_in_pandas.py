"""Analysis of stored runs in pandas; it reads the sweep that phase_diagram.py has trained, and imports no torch."""

from lazy_lightning import load_runs
from lazy_lightning.analysis import mean_and_error, power_law
from lazy_lightning.errors import AnalysisError

# A row a member: its configuration, its status and its last values.
runs = load_runs("runs/ball")
runs = runs[(runs["model"] == "network") & (runs["status"] == "finished")]

# Members that differ in their seed alone share a point of the grid and an alpha.
errors = runs.groupby(["h", "sqrt_h_alpha"])["test/error"].agg(["mean", "sem", "count"])
print(errors.unstack("h"))

# The observations of chosen members, in long form.
lazy = runs[runs["sqrt_h_alpha"] >= 10]
curves = lazy.curves.load(["train/loss", "displacement/total"])
print(curves.groupby("seed")["train/loss"].last())

# Outputs F of every member on the test set: the ensemble average and its error.
for (h, alpha), members in runs.groupby(["h", "alpha"]):
    stored = members.outputs.load("test")
    average = stored.outputs.mean(axis=0)
    print(f"h = {h}, alpha = {alpha:.3g}: {(average * stored.labels <= 0).mean():.1%} of the test set wrong")

# In lazy training the weights move by an amount proportional to 1/alpha: a power law with its error over seeds.
wide = lazy[lazy["h"] == 30]
table = wide.pivot_table(index="seed", columns="alpha", values="displacement/total")
print(mean_and_error(table.to_numpy()[:, 0]))
try:
    print(power_law(table.columns.to_numpy(), table.to_numpy()))
except AnalysisError as refused:  # a fit that the numbers do not support is refused with the reason
    print(refused)
