"""What a training compiles to: the primitives and collectives of MindSpore's graphs.

`python -m sknet.graph` prints them. Nothing is executed, so a graph for any number of ranks is
compiled by one process, and a graph for Ascend on a machine without cards.
"""
