"""The commands: each module is a function and a ``main()``."""
