// What the post-processing on a device gives, as Python sees it: faces that stay there, and the protocols by
// which other libraries read them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "array_view.hpp"
#include "device_array.hpp"
#include "dlpack_abi.hpp"
#include "retinaface/cuda.hpp"

namespace retinaface::python {

// Faces on a device, and what must outlive them: the stream, and the arrays that it reads.
class FacesOnDevice {
  public:
    FacesOnDevice(cuda::DeviceFaces faces, std::vector<Owner> owners)
        : faces_(std::move(faces)), owners_(std::move(owners)) {}
    FacesOnDevice(const FacesOnDevice&) = delete;
    FacesOnDevice& operator=(const FacesOnDevice&) = delete;
    ~FacesOnDevice() {
        faces_ = cuda::DeviceFaces();  // first, for it is given back on a stream that Python may own
        if (Py_IsInitialized() == 0) {
            // A library that lets go of a capsule after Python's end: there is nobody to give anything back
            // to.
            new std::vector<Owner>(std::move(owners_));
            return;
        }
        const py::gil_scoped_acquire acquire;  // the owner of a capsule may be any thread
        owners_.clear();
    }

    [[nodiscard]] const cuda::DeviceFaces& faces() const noexcept { return faces_; }

  private:
    cuda::DeviceFaces faces_;
    std::vector<Owner> owners_;
};

// An array of these faces: it lives as long as any view of it, in whatever library.
struct DeviceArray {
    std::shared_ptr<const FacesOnDevice> owner;
    const void* data;
    std::vector<std::int64_t> shape;
    dlpack::DataType dtype;
};

inline DeviceArray offsets_of(const std::shared_ptr<FacesOnDevice>& owner) {
    const cuda::DeviceFaces& faces = owner->faces();
    const auto length = static_cast<std::int64_t>(faces.batch_size()) + 1;
    return {owner, faces.offsets(), {length}, {dlpack::kInt, 32, 1}};
}

inline DeviceArray rows_of(const std::shared_ptr<FacesOnDevice>& owner) {
    const cuda::DeviceFaces& faces = owner->faces();
    const auto capacity = static_cast<std::int64_t>(faces.capacity());
    return {owner,
            faces.rows(),
            {capacity, static_cast<std::int64_t>(cuda::kFaceFloats)},
            {dlpack::kFloat, 32, 1}};
}

inline py::dict cuda_array_interface(const DeviceArray& array) {
    py::tuple shape(array.shape.size());
    for (std::size_t i = 0; i < array.shape.size(); ++i) shape[i] = py::int_(array.shape[i]);
    py::dict interface;
    interface["shape"] = shape;
    interface["typestr"] = array.dtype.code == dlpack::kFloat ? "<f4" : "<i4";
    // Not read-only: torch refuses what is.
    interface["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(array.data), false);
    interface["strides"] = py::none();
    interface["stream"] = protocol_stream(array.owner->faces().stream());
    interface["version"] = 3;
    return interface;
}

// The tensor of a capsule with what its pointers point to.
struct ExportedTensor {
    DeviceArray array;
    std::vector<std::int64_t> strides;
    dlpack::ManagedTensor managed;
};

inline void delete_exported(dlpack::ManagedTensor* managed) {
    std::unique_ptr<ExportedTensor>(static_cast<ExportedTensor*>(managed->context)).reset();
}

inline void delete_capsule(PyObject* capsule) {
    // Whoever took the tensor over has renamed the capsule.
    if (PyCapsule_IsValid(capsule, dlpack::kFresh) == 0) return;
    auto* const managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, dlpack::kFresh));
    managed->deleter(managed);
}

// The consumer's stream waits for ours, unless it is -1. None is the legacy default stream, as the protocol
// has it.
inline void wait_as_asked(const cuda::DeviceFaces& faces, const py::object& stream) {
    std::uintptr_t consumer = kLegacyStream;
    if (!stream.is_none()) {
        if (whole_number<std::int64_t>(stream) == -1) return;
        const auto handle = whole_number<std::uintptr_t>(stream);
        if (!handle || *handle == 0) {
            throw py::value_error("stream: expected None, -1, 1, 2 or the address of a stream, got " +
                                  std::string(py::repr(stream)));
        }
        consumer = *handle;
    }
    if (consumer == protocol_stream(faces.stream())) return;
    const py::gil_scoped_release release;
    cuda::wait_for(faces.device(), consumer, faces.stream());
}

inline py::capsule to_dlpack(const DeviceArray& array, const py::object& stream, const py::object& dl_device,
                             const py::object& copy) {
    const cuda::DeviceFaces& faces = array.owner->faces();
    if (!dl_device.is_none() && !dl_device.equal(py::make_tuple(dlpack::kCuda, faces.device()))) {
        throw py::buffer_error("dl_device: expected (2, " + std::to_string(faces.device()) +
                               "), where the array is, got " + std::string(py::repr(dl_device)));
    }
    if (!copy.is_none() && py::bool_(copy)) {
        throw py::buffer_error("copy: expected None or False, the array is not copied, got " +
                               std::string(py::repr(copy)));
    }
    wait_as_asked(faces, stream);

    auto exported = std::make_unique<ExportedTensor>();
    exported->array = array;
    std::int64_t step = 1;
    for (std::size_t axis = array.shape.size(); axis-- > 0;) {
        exported->strides.insert(exported->strides.begin(), step);
        step *= array.shape[axis];
    }
    exported->managed.tensor = {const_cast<void*>(array.data),
                                {dlpack::kCuda, faces.device()},
                                static_cast<std::int32_t>(array.shape.size()),
                                array.dtype,
                                exported->array.shape.data(),
                                exported->strides.data(),
                                0};
    exported->managed.context = exported.get();
    exported->managed.deleter = &delete_exported;
    py::capsule capsule(&exported->managed, dlpack::kFresh, &delete_capsule);
    static_cast<void>(exported.release());  // the capsule's now
    return capsule;
}

// (boxes, scores, landmarks) of each image, as arrays of their own.
inline py::list to_host(const FacesOnDevice& owner) {
    cuda::HostFaces host;
    {
        const py::gil_scoped_release release;
        host = owner.faces().to_host();
    }
    py::list images;
    for (std::size_t b = 0; b + 1 < host.offsets.size(); ++b) {
        const std::int32_t first = host.offsets[b];
        const py::ssize_t n = host.offsets[b + 1] - first;
        FloatArray boxes = float_array({n, 4});
        FloatArray scores = float_array({n});
        FloatArray landmarks = float_array({n, 5, 2});
        float* const box = boxes.mutable_data();
        float* const score = scores.mutable_data();
        float* const points = landmarks.mutable_data();
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
            const float* const row =
                host.rows.data() + (static_cast<std::size_t>(first) + i) * cuda::kFaceFloats;
            std::memcpy(box + i * 4, row, 4 * sizeof(float));
            score[i] = row[4];
            std::memcpy(points + i * kLandmarkFloats, row + 5, kLandmarkFloats * sizeof(float));
        }
        images.append(py::make_tuple(boxes, scores, landmarks));
    }
    return images;
}

}  // namespace retinaface::python
