"""Is this machine fit for the job? ``python -m infra.doctor``.

Facts are gathered first (`gathering`, `services`, `ascend_facts`), then judged by pure functions
(`machine`, `connections`, `ascend`). Nothing here imports MindSpore: its version is read from the
installed distribution.
"""
