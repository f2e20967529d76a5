"""What only looks, in plain PyTorch, NumPy and SciPy, without ComfyUI.

recording.py         what a probe keeps of a sampling run, and what it says of massive activations
metrics.py           what can be measured on pictures
calibration.py       what a grid of layers and scales says of the best one
contact_sheet.py     that grid's pictures side by side
features.py          what a block knows of pictures
matching.py          places, masks and parts by those features
feature_pictures.py  colours of features, maps and masks; needs matplotlib
figures.py           drawings; needs matplotlib
"""
