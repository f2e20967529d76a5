"""What only looks, in plain PyTorch and NumPy, without ComfyUI.

recording.py     what a probe keeps of a sampling run, and what it says of massive activations
metrics.py       what can be measured on pictures
figures.py       drawings of both; needs matplotlib
"""
