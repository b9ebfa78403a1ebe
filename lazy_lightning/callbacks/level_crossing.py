"""The time at which a quantity that was observed at some times crosses a level."""

from __future__ import annotations

import torch
from torch import Tensor


def first_crossing(t: Tensor, values: Tensor, level: Tensor, *, curved_beyond: float = torch.inf) -> Tensor:
    """Returns the time (E,) at which ``values`` first fall to ``level``, interpolated; NaN if they do not.

    The interpolation is linear in log t, and linear in t on a step that starts at t = 0. Where the step multiplies t by
    more than ``curved_beyond``, and there is a time before it, it is the parabola in log t through the three points.

    Args:
        t: times (K, E) that do not decrease.
        values: values (K, E) at these times.
        level: levels (E,) of the members.
        curved_beyond: ratio of times above which a parabola is used.

    >>> first_crossing(torch.tensor([[1.0], [100.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([0.5]))
    tensor([10.])
    """
    below = values <= level
    after = below.to(torch.int8).argmax(dim=0, keepdim=True)
    before = (after - 1).clamp_min(0)
    t_a, t_b = t.gather(0, before)[0], t.gather(0, after)[0]
    v_a, v_b = values.gather(0, before)[0], values.gather(0, after)[0]
    share = torch.where(v_a == v_b, 0.0, (v_a - level) / (v_a - v_b)).to(t.dtype)
    in_log = torch.exp(torch.lerp(t_a.log(), t_b.log(), share))
    crossing = torch.where(t_a > 0, in_log, torch.lerp(t_a, t_b, share))
    if curved_beyond < torch.inf:
        earlier = (after - 2).clamp_min(0)
        points = torch.stack([t.gather(0, earlier)[0], t_a, t_b])
        curved = _of_parabola(points, torch.stack([values.gather(0, earlier)[0], v_a, v_b]), level)
        uses = (t_b > curved_beyond * t_a) & curved.isfinite()
        crossing = torch.where(uses, curved, crossing)
    return torch.where(below.any(dim=0), crossing, torch.nan)


def _of_parabola(t: Tensor, values: Tensor, level: Tensor) -> Tensor:
    """(E,) the crossing between the last two of three points (3, E); not finite where they are not three points.

    A parabola that lies over the level at one end and not over it at the other crosses it once in between.
    """
    u, y = t.log(), values - level
    step, slope = torch.diff(u, dim=0), torch.diff(y, dim=0) / torch.diff(u, dim=0)
    bend = (slope[1] - slope[0]) / (step[0] + step[1])
    start = slope[1] - bend * step[1]  # the slope at the second point, which is negative or followed by bend < 0
    root = (start.square() - 4 * bend * y[1]).sqrt()
    return torch.exp(u[1] + 2 * y[1] / (root - start))
