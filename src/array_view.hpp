// Python arguments checked and turned into C++ views: the only place where a dtype, a shape, a layout or a
// number is judged. Every error names the argument, what was expected and what came.
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
#include "retinaface/decode.hpp"
#include "retinaface/postprocess.hpp"

namespace retinaface::python {

namespace py = pybind11;

using FloatArray = py::array_t<float, py::array::c_style>;

// An array in memory of its own, in rows and aligned. Never by a method of the object, which may be anything.
template <typename T>
py::array plain_copy(const py::array& array) {
    constexpr int kFlags = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    py::array copy = py::array_t<T, kFlags>::ensure(array);
    if (!copy) throw py::error_already_set();
    return copy;
}

inline std::string describe(const py::handle& object) {
    if (!py::isinstance<py::array>(object)) {
        return std::string(py::str(py::type::of(object).attr("__name__")));
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    return std::string(py::str(array.dtype())) + " array of shape " +
           std::string(py::str(array.attr("shape")));
}

[[noreturn]] inline void raise_type(const std::string& name, const std::string& expected,
                                    const py::handle& got, const std::string& hint = "") {
    throw py::type_error(name + ": expected " + expected + ", got " + describe(got) + hint);
}

// What NumPy calls the types that are taken.
template <typename T>
constexpr const char* kTypeName = nullptr;
template <>
inline constexpr const char* kTypeName<float> = "float32";
template <>
inline constexpr const char* kTypeName<double> = "float64";
template <>
inline constexpr const char* kTypeName<std::int64_t> = "int64";
template <>
inline constexpr const char* kTypeName<bool> = "bool";

// An array of one type whose rows along the last axes are contiguous; only the first axis of three may have
// any stride. It is the caller's memory where that is so already, and one copy where it is not.
template <typename T>
struct ArrayView {
    py::array keep_alive;
    const T* data = nullptr;
    std::size_t length = 0;     // of the first axis
    std::size_t rows = 1;       // of the second axis, when there are three
    std::ptrdiff_t stride = 0;  // numbers between entries of the first axis
    [[nodiscard]] const T* entry(std::size_t i) const noexcept {
        return data + static_cast<std::ptrdiff_t>(i) * stride;
    }
};

using FloatView = ArrayView<float>;

// The shape that an argument must have: any length of the first axis, then these. Put in words only for an
// error.
struct ExpectedShape {
    const char* first;         // name of the first axis
    py::ssize_t rows = -1;     // second axis of three, -1: there are fewer
    py::ssize_t columns = -1;  // last axis, -1: there is one axis only
    [[nodiscard]] py::ssize_t dimensions() const noexcept { return rows >= 0 ? 3 : columns >= 0 ? 2 : 1; }
    [[nodiscard]] std::string words(const char* type) const {
        std::string text = std::string(*type == 'i' ? "an " : "a ") + type + " array of shape (" + first;
        if (rows >= 0) text += ", " + std::to_string(rows);
        if (columns >= 0) return text + ", " + std::to_string(columns) + ")";
        return text + ",)";
    }
};

// An argument's name, with its place where it is one array of a list.
struct ArgumentName {
    const char* name;
    std::ptrdiff_t place = -1;
    [[nodiscard]] std::string words() const {
        return place < 0 ? std::string(name) : std::string(name) + "[" + std::to_string(place) + "]";
    }
};

template <typename T>
ArrayView<T> array_view(const ArgumentName& name, const py::handle& object, const ExpectedShape& expected) {
    constexpr const char* kType = kTypeName<T>;
    py::array array = py::isinstance<py::array>(object) ? py::reinterpret_borrow<py::array>(object)
                                                        : py::array::ensure(object);
    if (!array) {
        PyErr_Clear();
        raise_type(name.words(), expected.words(kType), object);
    }
    if (!py::isinstance<py::array_t<T>>(array)) {
        raise_type(name.words(), expected.words(kType), array,
                   "; convert it with .astype(numpy." + std::string(kType) + ")");
    }
    const py::ssize_t dimensions = expected.dimensions();
    if (array.ndim() != dimensions ||
        (expected.columns >= 0 && array.shape(dimensions - 1) != expected.columns) ||
        (expected.rows >= 0 && array.shape(1) != expected.rows)) {
        throw py::value_error(name.words() + ": expected " + expected.words(kType) + ", got " +
                              describe(array));
    }
    constexpr auto kItem = static_cast<py::ssize_t>(sizeof(T));
    bool usable = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
    py::ssize_t step = kItem;
    for (py::ssize_t axis = dimensions - 1; axis >= 0; --axis) {
        // Kernels take one or two axes whole; a batch may have any stride of whole numbers.
        const bool fits =
            axis == 0 && dimensions == 3 ? array.strides(0) % kItem == 0 : array.strides(axis) == step;
        usable = usable && (array.shape(axis) <= 1 || fits);
        step *= array.shape(axis);
    }
    if (!usable) array = plain_copy<T>(array);
    ArrayView<T> view;
    view.data = static_cast<const T*>(array.data());
    view.length = static_cast<std::size_t>(array.shape(0));
    view.rows = dimensions == 3 ? static_cast<std::size_t>(array.shape(1)) : 1;
    view.stride = static_cast<std::ptrdiff_t>(array.strides(0) / kItem);
    view.keep_alive = std::move(array);
    return view;
}

inline FloatView float_view(const ArgumentName& name, const py::handle& object,
                            const ExpectedShape& expected) {
    return array_view<float>(name, object, expected);
}

inline FloatView float_rows(const char* name, const py::handle& object, py::ssize_t columns) {
    return float_view({name}, object, {"N", -1, columns});
}

// Where each of the parts begins that `length` rows are divided into, and at last where they end. A copy: the
// array may be written to while the core, which trusts the numbers, reads them.
inline std::vector<std::size_t> part_offsets(const char* name, const py::handle& object, std::size_t length) {
    const auto view = array_view<std::int64_t>({name}, object, {"parts + 1"});
    const std::string expected = ": expected numbers that begin with 0, never fall and end with ";
    if (view.length == 0) {
        throw py::value_error(name + expected + std::to_string(length) + ", got none");
    }
    std::vector<std::size_t> offsets(view.length);
    std::int64_t before = 0;
    for (std::size_t i = 0; i < view.length; ++i) {
        const std::int64_t value = view.data[i];
        const bool ends_wrong = i + 1 == view.length && static_cast<std::uint64_t>(value) != length;
        if (value < before || (i == 0 && value != 0) || ends_wrong) {
            throw py::value_error(name + expected + std::to_string(length) + ", got " +
                                  std::to_string(value) + " at index " + std::to_string(i));
        }
        offsets[i] = static_cast<std::size_t>(value);
        before = value;
    }
    return offsets;
}

// Of an error that says "not a number of that kind", drops it; any other, such as an interrupt, goes on to
// the caller.
inline void clear_conversion_error() {
    if (PyErr_ExceptionMatches(PyExc_TypeError) != 0 || PyErr_ExceptionMatches(PyExc_ValueError) != 0 ||
        PyErr_ExceptionMatches(PyExc_OverflowError) != 0) {
        PyErr_Clear();
        return;
    }
    throw py::error_already_set();
}

// A pair as a tuple of its own: converting an item may run foreign code, which could change a list meanwhile.
// Null, and the error cleared, if the object is no sequence of two.
inline py::object as_pair(const py::handle& object) {
    auto pair = py::reinterpret_steal<py::object>(PySequence_Tuple(object.ptr()));
    if (!pair) clear_conversion_error();
    return pair && PyTuple_GET_SIZE(pair.ptr()) == 2 ? pair : py::object();
}

inline double number(const char* name, const py::handle& object, const char* expected) {
    const bool no_number = PyBool_Check(object.ptr()) || PyUnicode_Check(object.ptr());
    const double value = no_number ? -1.0 : PyFloat_AsDouble(object.ptr());
    if (!no_number && !(value == -1.0 && PyErr_Occurred() != nullptr)) return value;
    if (!no_number) clear_conversion_error();
    raise_type(name, expected, object);
}

// A threshold within [0, 1].
inline double unit_interval(const char* name, const py::handle& object) {
    const double value = number(name, object, "a number within [0, 1]");
    if (!(value >= 0.0 && value <= 1.0)) {
        throw py::value_error(std::string(name) + ": expected a number within [0, 1], got " +
                              std::string(py::repr(object)));
    }
    return value;
}

// Two positive factors, of centre and size deltas.
inline Variances variances_of(const char* name, const py::handle& object) {
    constexpr const char* kExpected = "two positive finite numbers";
    const py::object pair = as_pair(object);
    if (!pair) raise_type(name, kExpected, object);
    float values[2] = {};
    for (py::ssize_t i = 0; i < 2; ++i) {
        values[i] = static_cast<float>(number(name, PyTuple_GET_ITEM(pair.ptr(), i), kExpected));
        if (!(values[i] > 0.0F) || !std::isfinite(values[i])) {
            throw py::value_error(std::string(name) + ": expected " + kExpected + ", got " +
                                  std::string(py::repr(pair)));
        }
    }
    return {values[0], values[1]};
}

// An integer within [1, upper].
inline std::size_t count(const char* name, const py::handle& object, std::size_t upper) {
    const auto expected = [upper]() { return "an integer within [1, " + std::to_string(upper) + "]"; };
    if (PyBool_Check(object.ptr()) || PyIndex_Check(object.ptr()) == 0) raise_type(name, expected(), object);
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
    if (!integer) throw py::error_already_set();
    const long long value = PyLong_AsLongLong(integer.ptr());
    const bool overflow = value == -1 && PyErr_Occurred() != nullptr;
    if (overflow) PyErr_Clear();
    if (overflow || value < 1 || static_cast<unsigned long long>(value) > upper) {
        throw py::value_error(std::string(name) + ": expected " + expected() + ", got " +
                              std::string(py::repr(object)));
    }
    return static_cast<std::size_t>(value);
}

// The same, or None for no limit, which is 0.
inline std::size_t optional_count(const char* name, const py::handle& object) {
    return object.is_none() ? 0 : count(name, object, kMaxAnchors);
}

// What every search for faces is told, by the names that it has everywhere.
inline void read_limits(PostprocessOptions& options, const py::object& score_threshold,
                        const py::object& nms_threshold, const py::object& top_k,
                        const py::object& keep_top_k) {
    options.score_threshold = unit_interval("score_threshold", score_threshold);
    options.nms_threshold = unit_interval("nms_threshold", nms_threshold);
    options.top_k = optional_count("top_k", top_k);
    options.keep_top_k = optional_count("keep_top_k", keep_top_k);
}

// (height, width) of an image, whose anchors must be countable.
inline ImageSize image_size(const char* name, const py::handle& object) {
    const py::object pair = as_pair(object);
    if (!pair) {
        throw py::type_error(std::string(name) + ": expected (height, width), got " +
                             std::string(py::repr(object)));
    }
    return {count(name, PyTuple_GET_ITEM(pair.ptr(), 0), kMaxImageSide),
            count(name, PyTuple_GET_ITEM(pair.ptr(), 1), kMaxImageSide)};
}

inline std::size_t checked_num_anchors(const char* name, const AnchorPyramid& pyramid, ImageSize image) {
    const std::size_t anchors = pyramid.num_anchors(image);
    if (anchors > kMaxAnchors) {
        throw py::value_error(std::string(name) + ": " + std::to_string(image.height) + " x " +
                              std::to_string(image.width) + " has more than 2147483647 anchors");
    }
    return anchors;
}

inline FloatArray float_array(std::vector<py::ssize_t> shape) { return FloatArray(std::move(shape)); }

}  // namespace retinaface::python
