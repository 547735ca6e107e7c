"""A distributed benchmark harness for facial-affect models: the engine. It knows no dataset and no method."""

__version__ = "0.1.0"
