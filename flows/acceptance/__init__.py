"""The acceptance on Ascend cards: every line of docs/ascend.md that a command can check.

`lines` says what each line proves, in terms of `figures`; `checks` measures, with the `bench` and
the trainings that `trainings` runs; `results` is what is written; `__main__` is the command.
"""
