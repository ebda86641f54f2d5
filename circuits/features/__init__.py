"""Feature circuits: what a dictionary's latents, and what it leaves over, are worth, and how they feed each other.

``splicing.py`` puts changed codes into a pass; ``finding.py`` scores latents and measures the edges between the best;
``graph.py`` holds what was found; ``faithful.py`` asks what a few latents keep of the behaviour.
"""
