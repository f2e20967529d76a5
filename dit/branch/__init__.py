"""A perturbed prediction: a second one that departs from the conditional one at a block, or one of the host's own.

request      what a step is asked for and what it answers; the Perturbation protocol
plans        batched, in one forward with the rest, or sequential, in a forward of its own
patches      the block patches of all: share, capture and resume the prefix, or in place
in_place     no second prediction: one that the host computes in any case is perturbed
windows      a second prediction where the host cuts the latent into context windows
neighbours   other nodes' wrappers around the model
"""
