"""Every measure and figure of a network of your own: ``python scripts/inspect_network.py --config configs/inspect.yaml``."""

from jsonargparse import auto_cli

from cnflow.app._inspect import inspect_network

if __name__ == "__main__":
    auto_cli(inspect_network)
