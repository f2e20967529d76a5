"""The mathematics of Detail Guidance in plain PyTorch, without ComfyUI.

    guidance.py      the formula
    rule.py          what a weaker prediction is: observe and weaken
    massive.py       finding massive channels and disrupting them
    layers.py        fractions of the depth as blocks
    window.py        the part of the noise schedule that is guided, and the keep factor in it
    reuse.py         the detail of an earlier step in a later one's place
    settings.py      everything a user can set, validated
    words.py         attention to words
    foreground.py    the foreground, by the largest channels
    regions.py       masks of both
    numbers.py       numbers and lists of them, within a range
    profile.py       massive channels measured before, and their file
    preset.py        what a calibration recommends for a model, and its file

The method is that of Gan et al., "Massive Activations are the Key to Local Detail Synthesis in Diffusion Transformers",
arXiv 2510.11538, which is cited here as [DG], and of its follow-up, arXiv 2607.02968, cited as [EMA].
"""
