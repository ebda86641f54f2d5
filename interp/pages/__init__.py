"""Pages: what every self-contained HTML page of the toolkit shares, its head and policy, its colours, its drawing.

``document.py`` puts a page together; ``base.css`` and ``page.js`` are in all of them; ``packing.py`` carries arrays.
"""
