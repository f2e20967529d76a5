"""What only looks, in plain PyTorch, NumPy and SciPy, without ComfyUI.

recording.py     what a probe keeps of a sampling run, and what it says of massive activations
metrics.py       what can be measured on pictures
calibration.py   what a grid of layers and scales says of the best one
contact_sheet.py that grid's pictures side by side
figures.py       drawings; needs matplotlib
"""
