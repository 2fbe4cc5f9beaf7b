// Python arguments checked and turned into C++ views: the only place where a dtype, a shape, a layout or a number is judged.
// Every error names the argument, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "retinaface/anchors.hpp"

namespace retinaface::python {

namespace py = pybind11;

using FloatArray = py::array_t<float, py::array::c_style>;

inline std::string describe(const py::handle& object) {
    if (!py::isinstance<py::array>(object)) {
        return std::string(py::str(py::type::of(object).attr("__name__")));
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    return std::string(py::str(array.dtype())) + " array of shape " +
           std::string(py::str(array.attr("shape")));
}

[[noreturn]] inline void raise_type(const std::string& name, const std::string& expected, const py::handle& got,
                                    const std::string& hint = "") {
    throw py::type_error(name + ": expected " + expected + ", got " + describe(got) + hint);
}

// A float32 array whose rows along the last axes are contiguous; only the first axis may have any stride. It is the caller's
// memory where that is so already, and one copy where it is not.
struct FloatView {
    py::array keep_alive;
    const float* data = nullptr;
    std::size_t length = 0;      // of the first axis
    std::size_t rows = 1;        // of the second axis, when there are three
    std::ptrdiff_t stride = 0;   // floats between entries of the first axis
    [[nodiscard]] const float* entry(std::size_t i) const noexcept {
        return data + static_cast<std::ptrdiff_t>(i) * stride;
    }
};

// `shape` describes what is expected, in words; `last` is the length of the last axis (0: there is none to check).
inline FloatView float_view(const std::string& name, const py::handle& object, py::ssize_t dimensions, py::ssize_t last,
                            const std::string& shape) {
    const std::string expected = "a float32 array of shape " + shape;
    py::array array = py::isinstance<py::array>(object) ? py::reinterpret_borrow<py::array>(object)
                                                        : py::array::ensure(object);
    if (!array) {
        PyErr_Clear();
        raise_type(name, expected, object);
    }
    if (!py::isinstance<py::array_t<float>>(array)) {
        raise_type(name, expected, array, "; convert it with .astype(numpy.float32)");
    }
    if (array.ndim() != dimensions || (last > 0 && array.shape(dimensions - 1) != last)) {
        throw py::value_error(name + ": expected " + expected + ", got " + describe(array));
    }
    const auto item = static_cast<py::ssize_t>(sizeof(float));
    bool rows_contiguous = true;
    py::ssize_t step = item;
    for (py::ssize_t axis = dimensions - 1; axis >= 1; --axis) {
        rows_contiguous = rows_contiguous && (array.shape(axis) <= 1 || array.strides(axis) == step);
        step *= array.shape(axis);
    }
    const bool first_free = dimensions > 1 || array.shape(0) <= 1 || array.strides(0) == item;
    const bool aligned = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
    // Two-dimensional arrays are handed to kernels whole; a batch axis may have any stride of whole floats.
    const bool usable = rows_contiguous && first_free && aligned &&
                        (dimensions == 3 ? array.strides(0) % item == 0
                                         : array.shape(0) <= 1 || array.strides(0) == step);
    if (!usable) array = FloatArray(array);
    FloatView view;
    view.data = static_cast<const float*>(array.data());
    view.length = static_cast<std::size_t>(array.shape(0));
    view.rows = dimensions == 3 ? static_cast<std::size_t>(array.shape(1)) : 1;
    view.stride = static_cast<std::ptrdiff_t>(array.strides(0) / item);
    view.keep_alive = std::move(array);
    return view;
}

inline FloatView float_rows(const std::string& name, const py::handle& object, py::ssize_t columns) {
    return float_view(name, object, 2, columns, "(N, " + std::to_string(columns) + ")");
}

inline double number(const std::string& name, const py::handle& object, const std::string& expected) {
    const double value = PyBool_Check(object.ptr()) || PyUnicode_Check(object.ptr())
                             ? -1.0
                             : PyFloat_AsDouble(object.ptr());
    if (PyBool_Check(object.ptr()) || PyUnicode_Check(object.ptr()) || (value == -1.0 && PyErr_Occurred() != nullptr)) {
        PyErr_Clear();
        raise_type(name, expected, object);
    }
    return value;
}

// A threshold within [0, 1].
inline double unit_interval(const std::string& name, const py::handle& object) {
    const double value = number(name, object, "a number within [0, 1]");
    if (!(value >= 0.0 && value <= 1.0)) {
        throw py::value_error(name + ": expected a number within [0, 1], got " + std::string(py::repr(object)));
    }
    return value;
}

inline float positive(const std::string& name, const py::handle& object) {
    const double value = number(name, object, "a positive finite number");
    if (!(value > 0.0) || !std::isfinite(value)) {
        throw py::value_error(name + ": expected a positive finite number, got " + std::string(py::repr(object)));
    }
    return static_cast<float>(value);
}

// An integer within [1, upper].
inline std::size_t count(const std::string& name, const py::handle& object, std::size_t upper) {
    const std::string expected = "an integer within [1, " + std::to_string(upper) + "]";
    if (PyBool_Check(object.ptr()) || PyIndex_Check(object.ptr()) == 0) raise_type(name, expected, object);
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
    const long long value = PyLong_AsLongLong(integer.ptr());
    const bool overflow = value == -1 && PyErr_Occurred() != nullptr;
    if (overflow) PyErr_Clear();
    if (overflow || value < 1 || static_cast<unsigned long long>(value) > upper) {
        throw py::value_error(name + ": expected " + expected + ", got " + std::string(py::repr(object)));
    }
    return static_cast<std::size_t>(value);
}

// The same, or None for no limit, which is 0.
inline std::size_t optional_count(const std::string& name, const py::handle& object) {
    return object.is_none() ? 0 : count(name, object, kMaxAnchors);
}

// (height, width) of an image, whose anchors must be countable.
inline ImageSize image_size(const std::string& name, const py::handle& object) {
    const auto pair = py::reinterpret_steal<py::object>(PySequence_Fast(object.ptr(), ""));
    if (!pair || PySequence_Fast_GET_SIZE(pair.ptr()) != 2) {
        PyErr_Clear();
        throw py::type_error(name + ": expected (height, width), got " + std::string(py::repr(object)));
    }
    PyObject** const items = PySequence_Fast_ITEMS(pair.ptr());
    return {count(name + " height", items[0], kMaxImageSide), count(name + " width", items[1], kMaxImageSide)};
}

inline std::size_t checked_num_anchors(const std::string& name, const AnchorPyramid& pyramid, ImageSize image) {
    const std::size_t anchors = pyramid.num_anchors(image);
    if (anchors > kMaxAnchors) {
        throw py::value_error(name + ": " + std::to_string(image.height) + " x " + std::to_string(image.width) +
                              " has more than 2147483647 anchors");
    }
    return anchors;
}

inline FloatArray float_array(std::vector<py::ssize_t> shape) { return FloatArray(std::move(shape)); }

}  // namespace retinaface::python
