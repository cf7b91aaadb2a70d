"""BentoML, Pillow and onnxruntime: a service that takes the bytes of an image as its whole input."""

import os

import bentoml
import numpy as np
import onnxruntime
from PIL import Image, ImageOps


@bentoml.service
class Classifier:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.size = self.session.get_inputs()[0].shape[1]
        self.classes = os.environ["CLASSES"].split(",")

    @bentoml.api(route="/")
    def predict(self, photo: Image.Image, /) -> dict:
        photo.draft("RGB", (2 * self.size, 2 * self.size))
        pixels = np.asarray(
            ImageOps.fit(photo.convert("RGB"), (self.size, self.size), Image.Resampling.BILINEAR)
        )
        (probabilities,) = self.session.run(["probabilities"], {"image": pixels[np.newaxis]})
        scores = probabilities[0]
        return {
            "label": self.classes[int(scores.argmax())],
            "probabilities": {name: float(score) for name, score in zip(self.classes, scores)},
        }
