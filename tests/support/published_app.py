"""The published graph as an actor, for a worker: ``--app tests.support.published_app:app``. Nothing is added to it."""

from actors.graph import graph_actor
from runtime import App
from tests.support.published_graph import graph

app = App(actors=[graph_actor(graph, name="published")])
