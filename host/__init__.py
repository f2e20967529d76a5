"""What knows ComfyUI.

    families.py        the table of model families
    patch.py           puts Detail Guidance on a model
    run.py             one sampling run: which steps are guided, the formula, the report's figures
    step.py            one guided step: the two plans to get the detail prediction
    context_windows.py such a step in parts, for long videos
    block_patches.py   one forward of the model: sharing the prefix, disrupting, chaining with others' patches
    block_hooks.py     the block-replace hook for families that the host gives none
    rows.py            rows of a forward's batch, in whatever a block is given
    report.py          what happened: the log line, the warnings and the message to the web page

One step reads in this order: run.predict_noise → step.calc_cond_batch → step.apply_model → block_patches →
detail_guidance.guidance → report.
"""
