"""Atlas: what each head and neuron is like, by its weights and by what it does on texts.

``weights.py`` reads a model's matrices as the residual stream meets them; ``heads.py`` scores attention patterns and
copying; ``composing.py`` asks which heads read which; ``singular.py`` takes matrices apart through the vocabulary;
``neurons.py`` counts when neurons fire; ``through_heads.py`` follows neurons through later heads; ``flow.py`` maps what
moves from token to token. They describe; only effects (``flow``, ``second_order``, and the rest of ``circuits``) prove.
"""
