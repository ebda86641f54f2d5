"""The feature page: what every latent of a dictionary does, in one HTML file that needs no network.

``examples.py`` chooses texts, ``effects.py`` reads logits off directions, ``relations.py`` finds neighbours and draws
the map, ``gathering.py`` brings them together, ``packing.py`` and ``page.py`` write the page, ``neuronpedia.py`` its
JSON twin. Read first: ``dashboarding.py``.
"""
