"""Weaker predictions of the same model, by what one block is given or does: `BlockPerturbation`s.

    blocks       a block is skipped
    tokens       the image tokens at its input are blurred or shuffled
    attention    its image tokens' attention is the identity, or is blurred

Those of massive channels are in methods/massive_activations/perturbations.py.
"""
