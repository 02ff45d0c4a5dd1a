"""Real servers on this machine without Docker or a system Java, for the demo and the tests.

Every server comes from a Python wheel or from the jars of `jars.lock`. A module for each one says
how it is started and when it is ready, `stack` starts and ends them, `jars` gets their jars.
"""


class LocalStackError(Exception):
    """The local stack cannot do what was asked.

    The message is one sentence for the person at the terminal: what is in the way, and what to do.
    """
