"""Where the tensors of a module stand, for calling it with others in their place."""

from __future__ import annotations

from torch import nn


def tensor_aliases(module: nn.Module) -> dict[str, str]:
    """Every place of each parameter and buffer, with the tensor's first name: they differ where tensors are shared.

    For ``functional_call(..., tie_weights=False)``. A module that is known by two names is one place; by torch's own
    tying of weights it would be two, of which the second keeps what was put there for a call (pytorch issue 164759).

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> tensor_aliases(nn.ModuleDict({"one": layer, "two": layer}))
    {'one.weight': 'one.weight'}
    """
    first: dict[int, str] = {}
    places = {}
    for prefix, part in module.named_modules():
        for own in (part.named_parameters, part.named_buffers):
            for name, tensor in own(prefix, recurse=False, remove_duplicate=False):
                places[name] = first.setdefault(id(tensor), name)
    return places
