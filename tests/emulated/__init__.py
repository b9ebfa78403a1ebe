"""An emulated accelerator, device ``emu:0``: the device path of the package tested on any machine, without a GPU.

Registering a backend is global to a process and must come before its first backward pass, so the tests in this folder
run in a process of their own, which ``tests/test_emulated_device.py`` starts. To run some of them by hand::

    LAZY_LIGHTNING_DEVICE=emulated python -m pytest tests/emulated -n 0

``memory.py``: tensors of two devices over the same memory. ``waits.py``: the record of host synchronisations.
``kernels.py``: operations that the backend implements itself. ``dispatch.py``: all others, run by the CPU's kernels.
``backend.py``: the registration with torch. ``accelerator.py``: the registration with Lightning.
"""
