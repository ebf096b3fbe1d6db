"""The log in memory, with the same answers: for simulation, `actors.testing` and the contract suite."""
