"""Checks whether this machine can train: ``python -m infra.doctor``.

Facts are gathered first, then judged by pure functions. `machine` does both for the installation
and the hardware, `services` for the store and the Prefect server. On Ascend hosts, `ascend_tools`
and `cann_tools` gather what `ascend` and `cann` judge; `host_ports` and `binding` do both for
HCCL's ports and the cores of ranks. Nothing here imports MindSpore: its version, and the releases
of CANN that it accepts, are read from the installed distribution.
"""
