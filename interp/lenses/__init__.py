"""Lenses: what the residual stream at each layer already says about the output.

``logit_lens`` asks what the model would say if it stopped here; ``direct_logit_attribution`` what each part of the
network adds to the logits it does give. The first recomputes the final norm at each layer, the second keeps the scale
of the actual pass: they are different questions, and one with the other's scale is wrong.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Attribution": "attribution",
        "LensResult": "reading",
        "Readout": "readout",
        "Translators": "tuned",
        "direct_logit_attribution": "attribution",
        "future_lens": "future",
        "future_prompt": "prompting",
        "logit_lens": "logit",
        "train_translators": "tuned",
        "tuned_lens": "tuned",
    },
)
