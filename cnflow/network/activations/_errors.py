"""What can be wrong with a network, its modules or what is fed to it."""


class NetworkError(ValueError):
    """A network, a module's name, a batch or an activation that cannot be used; the message says what to change."""
