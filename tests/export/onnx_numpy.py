"""Runs an ONNX file in float64 with numpy: the ops that teskd writes, after their definitions, without any trick."""

import numpy
import onnx
from onnx import numpy_helper


def windows(x, kernel, strides, pads, fill):
    """[n, c, h, w] to [n, c, out_h, out_w, kernel_h, kernel_w]"""
    x = numpy.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=fill)
    view = numpy.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))
    return view[:, :, :: strides[0], :: strides[1]]


def conv(x, weight, bias=0.0, *, kernel_shape, strides, pads, group):
    parts = []
    for part, w in zip(numpy.split(x, group, 1), numpy.split(weight, group, 0)):
        parts.append(numpy.einsum("nchwkl,ockl->nohw", windows(part, kernel_shape, strides, pads, 0), w,
                                  optimize=True))
    return numpy.concatenate(parts, 1) + numpy.reshape(bias, (1, -1, 1, 1))


def batch_normalization(x, scale, bias, mean, var, *, epsilon):
    scale, bias, mean, var = (v.reshape(1, -1, 1, 1) for v in (scale, bias, mean, var))
    return (x - mean) / numpy.sqrt(var + epsilon) * scale + bias


def max_pool(x, *, kernel_shape, strides, pads):
    return windows(x, kernel_shape, strides, pads, -numpy.inf).max((4, 5))


def line_resize(x, axis, size):
    """Linear along one axis, the corners staying where they are."""
    place = numpy.linspace(0, x.shape[axis] - 1, size)
    low = numpy.clip(numpy.floor(place).astype(int), 0, max(x.shape[axis] - 2, 0))
    high = numpy.minimum(low + 1, x.shape[axis] - 1)
    share = (place - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.take(low, axis) * (1 - share) + x.take(high, axis) * share


def resize(x, roi, scales, *, mode, coordinate_transformation_mode):
    assert (mode, coordinate_transformation_mode, roi) == ("linear", "align_corners", None), "not what is written"
    for axis, scale in enumerate(scales):
        if scale != 1:
            x = line_resize(x, axis, int(x.shape[axis] * scale))
    return x


def gemm(a, b, c=0.0, *, transB):
    return a @ (b.T if transB else b) + c


def flatten(x, *, axis):
    return x.reshape(int(numpy.prod(x.shape[:axis])), -1)


OPS = {
    "Conv": conv,
    "BatchNormalization": batch_normalization,
    "MaxPool": max_pool,
    "Resize": resize,
    "Gemm": gemm,
    "Flatten": flatten,
    "Relu": lambda x: numpy.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + numpy.exp(-x)),
    "Add": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "Concat": lambda *parts, axis: numpy.concatenate(parts, axis),
    "Unsqueeze": lambda x, axes: numpy.expand_dims(x, tuple(int(a) for a in axes)),
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdims=True),
}


def attributes_of(node):
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def evaluate(model, images):
    """The outputs by name."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values = {name: v.astype(numpy.float64) if v.dtype == numpy.float32 else v for name, v in values.items()}
    values[""] = None
    values[model.graph.input[0].name] = images
    for node in model.graph.node:
        values[node.output[0]] = OPS[node.op_type](*(values[name] for name in node.input), **attributes_of(node))
    return {out.name: values[out.name] for out in model.graph.output}
