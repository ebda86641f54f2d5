"""Views: attention patterns and coloured tokens as objects that show themselves, in a notebook or as one HTML file.

A view holds exact arrays (``to_frame``), shows itself in a notebook inside a frame that can reach neither the notebook
nor the network, and saves itself as a page that needs nothing else. Tokens are data: whatever they hold, they are text.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AttentionView": "attention",
        "TokenView": "coloring",
        "View": "view",
        "attention_patterns": "attention",
        "colored_tokens": "coloring",
    },
)
