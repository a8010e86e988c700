"""From a source of images to exact batches: source → dataset → shards → order → pipeline."""

import os

# Read when OpenCV is first used. With Intel's library, its bicubic resizing and its hues would have
# other pixels on other processors, and others than MindSpore's.
os.environ["OPENCV_IPP"] = "disabled"
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # it would warn of that
