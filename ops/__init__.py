"""Composition root: settings, command line, embedded servers, process tree. Holds no logic that others need."""
