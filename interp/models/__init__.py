"""Models: one interface (``base``), the sites of an architecture (``anatomy``, ``families``, ``taps``),
and an adapter per library (``hooked``, ``hf``, ``tlens``, ``nns``). ``loading`` chooses among them."""
