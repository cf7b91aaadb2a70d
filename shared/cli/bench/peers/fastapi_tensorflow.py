"""FastAPI, Pillow and TensorFlow, with the weights of the same ONNX graph laid out as TensorFlow wants them."""

import io
import os

import numpy as np
import onnx
import tensorflow as tf
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from onnx import numpy_helper
from PIL import Image, ImageOps

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["THREADS"]))
tf.config.threading.set_inter_op_parallelism_threads(1)

graph = onnx.load(os.environ["MODEL"]).graph
weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
classes = os.environ["CLASSES"].split(",")


def attributes(node) -> dict:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def convolve(image, kernel, bias, settings):
    """ONNX keeps channels first, TensorFlow on a CPU wants them last."""
    top, left, bottom, right = settings["pads"]
    image = tf.pad(image, [[0, 0], [top, bottom], [left, right], [0, 0]])
    strides = [1, *settings["strides"], 1]
    if settings.get("group", 1) == 1:
        image = tf.nn.conv2d(image, tf.constant(kernel.transpose(2, 3, 1, 0)), strides, "VALID")
    else:
        image = tf.nn.depthwise_conv2d(image, tf.constant(kernel.transpose(2, 3, 0, 1)), strides, "VALID")
    return tf.nn.bias_add(image, tf.constant(bias))


def apply(node, values):
    inputs = [values.get(name, weights.get(name)) for name in node.input]
    match node.op_type:
        case "Cast":
            return tf.cast(inputs[0], tf.float32)
        case "Transpose" | "Flatten":
            return inputs[0]
        case "Sub":
            return inputs[0] - inputs[1]
        case "Mul":
            return inputs[0] * inputs[1]
        case "Add":
            return inputs[0] + inputs[1]
        case "Conv":
            return convolve(*inputs, attributes(node))
        case "Clip":
            return tf.clip_by_value(inputs[0], inputs[1], inputs[2])
        case "GlobalAveragePool":
            return tf.reduce_mean(inputs[0], axis=[1, 2])
        case "Gemm":
            return tf.matmul(inputs[0], inputs[1]) + inputs[2]
        case "Softmax":
            return tf.nn.softmax(inputs[0])
    raise SystemExit(f"This peer does not know the operator {node.op_type}.")


@tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])
def infer(image):
    values = {"image": image}
    for node in graph.node:
        values[node.output[0]] = apply(node, values)
    return values["probabilities"]


infer(tf.zeros([1, size, size, 3], tf.uint8))
app = FastAPI()


def classify(data: bytes) -> dict:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (2 * size, 2 * size))
    pixels = np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
    scores = infer(tf.constant(pixels[np.newaxis])).numpy()[0]
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
