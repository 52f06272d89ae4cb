"""Models exported to ONNX: run without torch, with the same rows and fingerprints.

An export is three files beside a model's `open_clip_model.safetensors`, or beside a copy of it in the user's cache:

* `open_clip_image.onnx` and `open_clip_text.onnx`: the two towers as graphs without weights, which point into the
  safetensors file (`graphs.py`). They are as small as 100 kB, and memory holds the weights once.
* `open_clip_onnx.json`: what the graphs were made from, and how far their rows are from torch's (`files.py`). It is
  written last, so an interrupted export is none.

`export.py` makes them, with torch; `encoder.py` runs them, without.
"""
