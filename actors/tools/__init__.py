"""Analysers of Python code and the rendering of their report.

Plain functions from a folder to frozen Structs: they know no actor, no NATS and no log. Agents call each as one
journaled step, so every argument and result can be encoded by msgspec and is equal for equal input. Analysed code is
read, never imported and never run.
"""
