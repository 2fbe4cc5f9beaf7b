// Device arrays of other libraries, by `__cuda_array_interface__` or DLPack, checked and turned into pointers
// and strides. Nothing here reads the memory, copies it or knows CUDA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "array_view.hpp"
#include "dlpack_abi.hpp"

namespace retinaface::python {

// Streams as both protocols write them: 0 is ambiguous there, 1 and 2 are those of CUDA without a handle.
inline constexpr std::uintptr_t kLegacyStream = 1;
inline constexpr std::uintptr_t kPerThreadStream = 2;

inline std::uintptr_t protocol_stream(std::uintptr_t stream) noexcept {
    return stream == 0 ? kLegacyStream : stream;
}

// What keeps something of a device alive: the object that described it, or the tensor that DLPack handed
// over. To be let go of with the GIL held.
struct Owner {
    py::object object;
    std::shared_ptr<void> tensor;
};

// A float32 array (B, A, C) on a device.
struct DeviceArrayView {
    const float* data = nullptr;
    std::size_t length = 0;                // B
    std::ptrdiff_t stride = 0;             // floats between images
    std::optional<int> device;             // if the protocol says so
    std::optional<std::uintptr_t> stream;  // on which it is being written, if it is still to be waited for
    Owner owner;
};

// What an object says of its array, in the terms of both protocols.
struct DeviceArrayClaim {
    std::uintptr_t data = 0;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;  // bytes; empty: row after row
    std::string dtype;
};

inline std::string shape_words(const std::vector<std::int64_t>& shape) {
    py::tuple tuple(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) tuple[i] = py::int_(shape[i]);
    return std::string(py::str(tuple));
}

inline std::string device_array_words(const ExpectedShape& expected) {
    return "a float32 CUDA array of shape (" + std::string(expected.first) + ", " +
           std::to_string(expected.rows) + ", " + std::to_string(expected.columns) + ")";
}

// The attribute, or null if the object has none. Whatever else goes wrong while it is looked up goes on to
// the caller, except what torch says of a tensor that requires a gradient: that becomes an error of the
// argument.
inline py::object optional_attribute(const ArgumentName& name, const py::handle& object,
                                     const char* attribute) {
    auto value = py::reinterpret_steal<py::object>(PyObject_GetAttrString(object.ptr(), attribute));
    if (value) return value;
    if (PyErr_ExceptionMatches(PyExc_AttributeError) != 0) {
        PyErr_Clear();
        return {};
    }
    py::error_already_set error;
    if (!error.matches(PyExc_RuntimeError)) throw error;
    const std::string words = name.words() + ": " + std::string(py::str(error.value()));
    py::raise_from(error, PyExc_ValueError, words.c_str());
    throw py::error_already_set();
}

// A number of an interface, which may be anything: null if it is no integer or does not fit.
template <typename T>
std::optional<T> whole_number(const py::handle& object) {
    if (PyBool_Check(object.ptr()) || PyIndex_Check(object.ptr()) == 0) return std::nullopt;
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
    if (!integer) throw py::error_already_set();
    if constexpr (std::is_signed_v<T>) {
        const long long value = PyLong_AsLongLong(integer.ptr());
        if (!(value == -1 && PyErr_Occurred() != nullptr)) return static_cast<T>(value);
    } else {
        const unsigned long long value = PyLong_AsUnsignedLongLong(integer.ptr());
        const bool failed = value == std::numeric_limits<unsigned long long>::max() && PyErr_Occurred();
        if (!failed && value <= std::numeric_limits<T>::max()) return static_cast<T>(value);
        if (!failed) return std::nullopt;
    }
    clear_conversion_error();
    return std::nullopt;
}

// --- __cuda_array_interface__

class CudaArrayInterface {
  public:
    CudaArrayInterface(const ArgumentName& name, const py::object& interface) : name_(name) {
        if (!PyDict_Check(interface.ptr())) malformed("a dict", interface);
        // A copy: what it holds may run foreign code that changes it meanwhile.
        entries_ = py::reinterpret_steal<py::dict>(PyDict_Copy(interface.ptr()));
        if (!entries_) throw py::error_already_set();
    }

    [[nodiscard]] DeviceArrayClaim claim() const {
        const auto version = whole_number<std::int64_t>(entry("version"));
        if (!version || (*version != 2 && *version != 3)) malformed("version 2 or 3", entry("version"));
        DeviceArrayClaim claim;
        const py::object typestr = entry("typestr");
        if (!PyUnicode_Check(typestr.ptr())) malformed("'typestr' to be a str", typestr);
        claim.dtype = std::string(py::str(typestr));
        claim.shape = numbers("shape");
        for (const std::int64_t side : claim.shape) {
            if (side < 0) malformed("no negative number in 'shape'", entry("shape"));
        }
        if (!optional_entry("strides").is_none()) {
            claim.strides = numbers("strides");
            if (claim.strides.size() != claim.shape.size()) {
                malformed("as many numbers in 'strides' as in 'shape'", entry("strides"));
            }
        }
        const py::object data = entry("data");
        std::optional<std::uintptr_t> address;
        if (PyTuple_Check(data.ptr()) && PyTuple_GET_SIZE(data.ptr()) == 2) {
            address = whole_number<std::uintptr_t>(PyTuple_GET_ITEM(data.ptr(), 0));
        }
        if (!address) malformed("'data' to be an address and a bool", data);
        claim.data = *address;
        if (!optional_entry("mask").is_none()) {
            throw py::value_error(name_.words() + ": expected an array without a mask, got one with a mask");
        }
        return claim;
    }

    [[nodiscard]] std::optional<std::uintptr_t> stream() const {
        const py::object value = optional_entry("stream");
        if (value.is_none()) return std::nullopt;
        const auto handle = whole_number<std::uintptr_t>(value);
        if (!handle || *handle == 0) malformed("'stream' to be None or an integer above 0", value);
        return handle;
    }

  private:
    [[noreturn]] void malformed(const std::string& expected, const py::handle& got) const {
        throw py::type_error(name_.words() + ".__cuda_array_interface__: expected " + expected + ", got " +
                             std::string(py::repr(got)));
    }
    [[nodiscard]] py::object optional_entry(const char* key) const {
        PyObject* const value = PyDict_GetItemString(entries_.ptr(), key);
        return value == nullptr ? py::none() : py::reinterpret_borrow<py::object>(value);
    }
    [[nodiscard]] py::object entry(const char* key) const {
        PyObject* const value = PyDict_GetItemString(entries_.ptr(), key);
        if (value == nullptr) {
            malformed("the key '" + std::string(key) + "'", py::list(entries_.attr("keys")()));
        }
        return py::reinterpret_borrow<py::object>(value);
    }
    [[nodiscard]] std::vector<std::int64_t> numbers(const char* key) const {
        const py::object value = entry(key);
        const std::string expected = "'" + std::string(key) + "' to be a tuple of integers";
        if (!PyTuple_Check(value.ptr())) malformed(expected, value);
        std::vector<std::int64_t> numbers;
        for (const py::handle item : py::reinterpret_borrow<py::tuple>(value)) {
            const auto number = whole_number<std::int64_t>(item);
            if (!number) malformed(expected, value);
            numbers.push_back(*number);
        }
        return numbers;
    }

    ArgumentName name_;
    py::dict entries_;
};

// What the types of both protocols are called: "<f8" is float64.
inline std::string dtype_words(const std::string& typestr) {
    constexpr std::pair<char, const char*> kKinds[] = {
        {'f', "float"}, {'i', "int"}, {'u', "uint"}, {'c', "complex"}};
    if (typestr == "|b1") return "bool";
    if (typestr.size() != 3 || typestr[0] == '>' || typestr[2] < '1' || typestr[2] > '8') return typestr;
    for (const auto& [kind, words] : kKinds) {
        if (typestr[1] == kind) return words + std::to_string((typestr[2] - '0') * 8);
    }
    return typestr;
}

// --- DLPack

// The tensor in a capsule, which is ours from here on and given back by `managed`, with the GIL held.
inline const dlpack::Tensor& take_over(const py::object& capsule, std::shared_ptr<void>& managed) {
    auto* const tensor =
        static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kFresh));
    if (tensor == nullptr || PyCapsule_SetName(capsule.ptr(), dlpack::kUsed) != 0) {
        throw py::error_already_set();
    }
    managed = std::shared_ptr<void>(tensor, [](void* taken) {
        auto* const mine = static_cast<dlpack::ManagedTensor*>(taken);
        if (mine->deleter != nullptr) mine->deleter(mine);
    });
    return tensor->tensor;
}

// Null if the object speaks no DLPack, or with the device in words if the array does not lie on one of
// CUDA's.
struct DlpackDevice {
    std::optional<int> cuda;
    std::string other;
};

inline DlpackDevice dlpack_device(const ArgumentName& name, const py::object& object) {
    const py::object method = optional_attribute(name, object, "__dlpack_device__");
    if (!method) return {};
    const py::object answer = method();
    std::optional<std::int64_t> numbers[2];
    if (const py::object pair = as_pair(answer)) {
        for (py::ssize_t i = 0; i < 2; ++i) {
            // Some write the type as an enumeration, which is an integer, too.
            numbers[i] = whole_number<std::int64_t>(PyTuple_GET_ITEM(pair.ptr(), i));
        }
    }
    constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
    if (!numbers[0] || !numbers[1] || *numbers[1] < 0 || *numbers[1] > kLargest) {
        throw py::type_error(name.words() + ".__dlpack_device__(): expected a type and a number, got " +
                             std::string(py::repr(answer)));
    }
    if (*numbers[0] == dlpack::kCuda) return {static_cast<int>(*numbers[1]), ""};
    if (*numbers[0] == dlpack::kCpu) return {std::nullopt, "in host memory"};
    return {std::nullopt, "on a device of DLPack type " + std::to_string(*numbers[0])};
}

inline std::string dtype_words(const dlpack::DataType& dtype) {
    const std::string lanes = dtype.lanes == 1 ? "" : " x " + std::to_string(dtype.lanes);
    const std::string bits = std::to_string(dtype.bits);
    if (dtype.code == dlpack::kFloat) return "float" + bits + lanes;
    if (dtype.code == dlpack::kInt) return "int" + bits + lanes;
    if (dtype.code == dlpack::kUint) return "uint" + bits + lanes;
    return "DLPack type " + std::to_string(dtype.code) + " of " + bits + " bits" + lanes;
}

inline DeviceArrayClaim claim_of(const ArgumentName& name, const dlpack::Tensor& tensor, int device) {
    const std::string says = name.words() + ".__dlpack__(): ";
    if (tensor.device.type != dlpack::kCuda || tensor.device.id != device) {
        throw py::value_error(says + "expected memory of CUDA device " + std::to_string(device) +
                              ", as __dlpack_device__ says, got device " + std::to_string(tensor.device.id) +
                              " of type " + std::to_string(tensor.device.type));
    }
    if (tensor.ndim < 0 || tensor.ndim > 64 || (tensor.ndim > 0 && tensor.shape == nullptr)) {
        throw py::value_error(says + "expected a shape of at most 64 axes, got " +
                              std::to_string(tensor.ndim) + (tensor.ndim < 0 ? "" : " without numbers"));
    }
    DeviceArrayClaim claim;
    claim.dtype = dtype_words(tensor.dtype);
    const auto axes = static_cast<std::size_t>(tensor.ndim);
    claim.shape.assign(tensor.shape, tensor.shape + axes);
    if (tensor.strides != nullptr) {
        for (std::size_t axis = 0; axis < axes; ++axis) {
            constexpr std::int64_t kItem = sizeof(float);
            const std::int64_t stride = tensor.strides[axis];
            constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max() / kItem;
            if (stride > kLargest || stride < -kLargest) {
                throw py::value_error(says + "a stride of " + std::to_string(stride) + " is out of range");
            }
            claim.strides.push_back(stride * kItem);
        }
    }
    const auto base = reinterpret_cast<std::uintptr_t>(tensor.data);
    claim.data = base == 0 ? 0 : base + static_cast<std::uintptr_t>(tensor.byte_offset);
    return claim;
}

// --- what is taken

inline void check_claim(const ArgumentName& name, const py::object& object, const ExpectedShape& expected,
                        const DeviceArrayClaim& claim, DeviceArrayView& view) {
    const std::string kind(py::str(py::type::of(object).attr("__name__")));
    const std::string got = claim.dtype + " " + kind + " of shape " + shape_words(claim.shape);
    if (claim.dtype != "float32") {
        throw py::type_error(name.words() + ": expected " + device_array_words(expected) + ", got " + got +
                             "; convert it to float32");
    }
    if (claim.shape.size() != 3 || claim.shape[1] != expected.rows || claim.shape[2] != expected.columns) {
        throw py::value_error(name.words() + ": expected " + device_array_words(expected) + ", got " + got);
    }
    constexpr std::int64_t kItem = sizeof(float);
    const std::int64_t images = claim.shape[0];
    if (images < 1) {
        throw py::value_error(name.words() + ": expected at least one image, got none");
    }
    std::int64_t stride = claim.shape[1] * claim.shape[2] * kItem;
    if (!claim.strides.empty()) {
        const bool rows_fit = (claim.shape[2] == 1 || claim.strides[2] == kItem) &&
                              (claim.shape[1] == 1 || claim.strides[1] == claim.shape[2] * kItem);
        if (!rows_fit || (images > 1 && claim.strides[0] % kItem != 0)) {
            throw py::value_error(
                name.words() + ": expected contiguous rows of float32 in each image, got strides of " +
                shape_words(claim.strides) + " bytes; the device array is not copied, make it .contiguous()");
        }
        if (images > 1) stride = claim.strides[0];
    }
    // No address of the array may leave the numbers that an address has, so that no product below overflows.
    constexpr std::int64_t kRange = std::numeric_limits<std::int64_t>::max() / 4;
    if (stride < -kRange || images > kRange / std::max(std::abs(stride), kItem)) {
        throw py::value_error(name.words() + ": expected an array that memory can hold, got " + got +
                              " with strides of " + std::to_string(stride) + " bytes");
    }
    if (claim.data == 0 || claim.data % static_cast<std::uintptr_t>(kItem) != 0) {
        throw py::value_error(name.words() + ": expected an aligned address of device memory, got " +
                              std::to_string(claim.data));
    }
    view.data = reinterpret_cast<const float*>(claim.data);
    view.length = static_cast<std::size_t>(images);
    view.stride = static_cast<std::ptrdiff_t>(stride / kItem);
}

// `stream` is ours: DLPack makes it wait for the array.
inline DeviceArrayView device_array_view(const ArgumentName& name, const py::object& object,
                                         const ExpectedShape& expected, std::uintptr_t stream) {
    DeviceArrayView view;
    if (const py::object found = optional_attribute(name, object, "__cuda_array_interface__")) {
        const CudaArrayInterface interface(name, found);
        DeviceArrayClaim claim = interface.claim();
        claim.dtype = dtype_words(claim.dtype);
        check_claim(name, object, expected, claim, view);
        view.stream = interface.stream();
        view.owner.object = object;
        return view;
    }
    const DlpackDevice device = dlpack_device(name, object);
    if (!device.cuda) {
        const bool host = py::isinstance<py::array>(object) || !device.other.empty();
        const std::string where = device.other.empty() ? "" : " " + device.other;
        raise_type(name.words(), device_array_words(expected), object,
                   where + (host ? "; what lies in host memory is for retinaface_fast.ops.postprocess" : ""));
    }
    const py::object method = optional_attribute(name, object, "__dlpack__");
    if (!method) {
        raise_type(name.words(), device_array_words(expected), object, " without the method __dlpack__");
    }
    const py::object capsule = method(py::arg("stream") = protocol_stream(stream));
    if (PyCapsule_IsValid(capsule.ptr(), dlpack::kFresh) == 0) {
        throw py::type_error(name.words() +
                             ".__dlpack__(): expected a fresh capsule named \"dltensor\", got " +
                             std::string(py::repr(capsule)));
    }
    const DeviceArrayClaim claim = claim_of(name, take_over(capsule, view.owner.tensor), *device.cuda);
    check_claim(name, object, expected, claim, view);
    view.device = device.cuda;
    return view;
}

}  // namespace retinaface::python
