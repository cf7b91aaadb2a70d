"""FastAPI, Pillow and onnxruntime: the usual ways to serve an image classifier from Python.

`/` works in FastAPI's thread pool, which has the higher throughput; `/inline` works on the event loop, which has the
lower latency while nobody else asks.
"""

import io
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image, ImageOps

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ["THREADS"])
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
size = session.get_inputs()[0].shape[1]
classes = os.environ["CLASSES"].split(",")

app = FastAPI()


def classify(data: bytes) -> dict:
    image = Image.open(io.BytesIO(data))
    # Lets libjpeg scale a large photo while decoding; nothing happens to a small one.
    image.draft("RGB", (2 * size, 2 * size))
    pixels = np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
    (probabilities,) = session.run(["probabilities"], {"image": pixels[np.newaxis]})
    scores = probabilities[0]
    return {
        "label": classes[int(scores.argmax())],
        "probabilities": {name: float(score) for name, score in zip(classes, scores)},
    }


@app.get("/ready")
def ready() -> dict:
    return {"ready": True}


@app.post("/")
async def predict(request: Request) -> dict:
    return await run_in_threadpool(classify, await request.body())


@app.post("/inline")
async def predict_inline(request: Request) -> dict:
    return classify(await request.body())
