"""A phase diagram of one's own data: write the data, a configuration, a sweep; train; draw the report.

Each call of ``main`` is the command of the same words after ``lazy-lightning``.
"""

from pathlib import Path

import numpy as np

from lazy_lightning import load_runs
from lazy_lightning.cli import main

# 1. The data: x (n, ...) and integer classes y (n,), here a ball and its outside.
random = np.random.default_rng(0)
x = random.standard_normal((300, 4))
radius = np.linalg.norm(x[:, :3], axis=1)
np.savez("ball.npz", x=x, y=(radius > np.median(radius)).astype(int))

# 2. A configuration that fits these data, with a comment on each key.
if not Path("ball.yaml").exists():
    assert main(["init", "--data", "ball.npz"]) == 0

# 3. The grid: any key of the configuration, and sqrt(h) alpha, the scale at which widths agree.
Path("sweep.yaml").write_text(
    """\
name: ball
grid:
  model.network.width: [10, 30]
  sqrt_h_alpha: {from: 0.1, to: 1000, per_decade: 1}
  seeds: 3
  data.n_train: 60
  model.stop.max_steps: 500
"""
)

# 4. Train it in this process; callbacks/ntk.yaml observes the kernel's drift, which tells the regimes apart. The same
# command after Ctrl-C continues, and trains no member twice.
sweep = ["sweep", "--config", "ball.yaml", "--config", "callbacks/ntk.yaml", "--sweep", "sweep.yaml", "--workers", "0"]
assert main(sweep) == 0

# 5. One row a member, and the figures with their numbers.
runs = load_runs("runs/ball")
print(runs.groupby(["h", "sqrt_h_alpha"])["test/error"].agg(["mean", "sem"]))
assert main(["report", "runs/ball", "--out", "ball_report"]) == 0
