"""A second prediction that departs from the conditional one at a block.

request      what a step is asked for and what it answers; the Perturbation protocol
plans        batched, in one forward with the rest, or sequential, in a forward of its own
patches      the block patches of either: share, capture and resume the prefix
windows      the same where the host cuts the latent into context windows
neighbours   other nodes' wrappers around the model
"""
