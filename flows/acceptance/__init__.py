"""The acceptance on Ascend cards: every line of docs/ascend.md that a command can check.

`lines` says what each line proves and what it is judged by; `checks` measures, with trainings that
`trainings` runs; `results` is what is written; `__main__` is the command.
"""
