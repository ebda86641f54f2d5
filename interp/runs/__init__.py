"""What long work stands on: atomic ``files``, ``progress`` and interruption, ``provenance``."""
