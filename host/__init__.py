"""What knows ComfyUI.

    families.py        the table: what is known of each model family, and of nothing else
    layout.py          where the picture lies in a forward's streams: the table's word against what they show
    patch.py           puts Detail Guidance on a model
    run.py             one sampling run: which steps are guided, the formula, the report's figures
    task.py            what one guided step is asked for, and what it answers
    step.py            the two plans from the one to the other
    context_windows.py such a step in parts, for long videos
    blocks.py          the block patches of a step: sharing the prefix, recording, resuming, weakening
    forward.py         one forward of the model under such patches, chained with others'
    block_hooks.py     the block-replace hook for families that the host gives none
    rows.py            rows of a forward's batch, in whatever a block is given
    probe.py           watching a run without changing it
    calibration.py     sampling a grid of layers and scales
    presets.py         whose a preset is, and where presets are kept
    regions.py         reading in each step which part of the picture is meant, by words.py or foreground.py
    word_masks.py      the masks of a run's words, as far as it has come
    prompt_words.py    words of a prompt among its tokens
    noised.py          showing pictures to a model once; features.py keeps what stands at a block then
    report.py          what happened: the log line, the warnings and the message to the web page

One step reads in this order: run.predict_noise → step.answer → step.together or in_turn → blocks →
detail_guidance.guidance → report.
"""
