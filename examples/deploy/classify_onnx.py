"""Classify videos with an .onnx file of slowfast export; needs onnxruntime, numpy and PyAV only.

python classify_onnx.py model.onnx clip.mp4 [...]
"""

import json
import sys

import av
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
text = session.get_modelmeta().custom_metadata_map
mean, std, names, clip, spatial = (json.loads(text[k]) for k in "mean std class_names sampling spatial".split())
for path in sys.argv[2:]:
    with av.open(path) as video:
        fps, frames = float(video.streams.video[0].guessed_rate or 30), list(video.decode(video=0))
    # One clip of fixed duration, from the start or the middle of the video; the center crop of its frames.
    span = clip["rate"] * clip["frames"] / clip["input_fps"] * fps
    start = max(len(frames) - span, 0) // 2 if clip["offset_sampling"] else 0
    rows = np.linspace(start, start + max(span - 1, 0), clip["frames"]).astype(int).clip(0, len(frames) - 1)
    size, (w, h) = spatial["crop_size"], (frames[0].width, frames[0].height)
    w, h = (side * spatial["short_side"] // min(w, h) for side in (w, h))
    rgb = np.stack([frames[i].to_ndarray(format="rgb24", width=w, height=h, interpolation="AREA") for i in rows])
    top, left = -(-(h - size) // 2), -(-(w - size) // 2)
    crop = rgb[:, top : top + size, left : left + size, :: -1 if text["channel_order"] == "BGR" else 1]
    inputs = ((crop / 255 - mean) / std).astype(np.float32).transpose(3, 0, 1, 2)[None]  # (1, 3, T, H, W)
    logits = session.run(None, {"input": inputs})[0][0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(path, *(f"{names[i]} {scores[i]:.4f}" for i in scores.argsort()[:-6:-1]), sep="\n  ")
