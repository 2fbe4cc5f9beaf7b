// The extension module of the post-processing on CUDA devices. Apart from the core, which so never carries
// the CUDA runtime.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "array_view.hpp"
#include "cuda_faces.hpp"
#include "device_array.hpp"
#include "retinaface/cuda.hpp"

#ifdef RETINAFACE_CUDA_ON_CPU
#include "cuda_on_cpu.hpp"
#endif

namespace retinaface::python {

namespace {

constexpr const char* kStreamWords =
    "0 (the default stream), the address of a CUDA stream, or an object with __cuda_stream__";

// That of a thread by itself is another one where faces are fetched, or let go of, in another thread.
std::uintptr_t no_stream_of_a_thread(std::uintptr_t handle) {
    if (handle != kPerThreadStream) return handle;
    throw py::value_error(
        "stream: expected a stream that is the same in all threads, got 2, the default stream of a thread");
}

std::uintptr_t stream_of(const py::object& stream) {
    if (const py::object protocol = optional_attribute({"stream"}, stream, "__cuda_stream__")) {
        const py::object answer = PyCallable_Check(protocol.ptr()) != 0 ? protocol() : protocol;
        if (const py::object pair = as_pair(answer)) {
            const auto version = whole_number<std::int64_t>(PyTuple_GET_ITEM(pair.ptr(), 0));
            const auto handle = whole_number<std::uintptr_t>(PyTuple_GET_ITEM(pair.ptr(), 1));
            if (version == 0 && handle) return no_stream_of_a_thread(*handle);
        }
        throw py::type_error("stream.__cuda_stream__: expected version 0 and an address, got " +
                             std::string(py::repr(answer)));
    }
    if (PyBool_Check(stream.ptr()) || PyIndex_Check(stream.ptr()) == 0) {
        raise_type("stream", kStreamWords, stream);
    }
    const auto handle = whole_number<std::uintptr_t>(stream);
    if (!handle) {
        throw py::value_error(std::string("stream: expected ") + kStreamWords + ", got " +
                              std::string(py::repr(stream)));
    }
    return no_stream_of_a_thread(*handle);
}

AnchorPyramid make_pyramid(const std::vector<std::size_t>& strides,
                           const std::vector<std::vector<float>>& sizes) {
    if (strides.size() != sizes.size()) {
        throw py::value_error("sizes: expected one entry for each of the " + std::to_string(strides.size()) +
                              " strides, got " + std::to_string(sizes.size()));
    }
    std::vector<AnchorLevel> levels;
    levels.reserve(strides.size());
    for (std::size_t k = 0; k < strides.size(); ++k) levels.push_back({strides[k], sizes[k]});
    return AnchorPyramid(std::move(levels));
}

// What all arrays of a call have in common.
struct Batch {
    std::size_t length = 0;
    int device = -1;
    std::uintptr_t stream = 0;           // of the call
    std::vector<std::uintptr_t> others;  // to be waited for
    std::vector<Owner> owners;

    void add(const ArgumentName& name, DeviceArrayView& view) {
        int at = -1;
        if (view.device) {
            at = *view.device;
        } else {
            try {
                at = cuda::device_of(view.data);
            } catch (const cuda::Error& error) {
                if (cuda::device_count() == 0) throw;  // then it is not the argument's fault
                throw py::value_error(name.words() +
                                      ": expected memory of a CUDA device, got an address of "
                                      "which CUDA says: " +
                                      error.what());
            }
        }
        if (owners.empty()) {
            length = view.length;
            device = at;
        }
        if (view.length != length) {
            throw py::value_error(name.words() + ": expected " + std::to_string(length) +
                                  " images, as in the first array of class_scores, got " +
                                  std::to_string(view.length));
        }
        if (at != device) {
            throw py::value_error(name.words() + ": expected an array on CUDA device " +
                                  std::to_string(device) +
                                  ", as the first array of class_scores, got one on " + std::to_string(at));
        }
        if (view.stream && *view.stream != protocol_stream(stream) &&
            std::find(others.begin(), others.end(), *view.stream) == others.end()) {
            others.push_back(*view.stream);
        }
        owners.push_back(std::move(view.owner));
    }
};

// The arrays of one output, one over all levels or one for each, as where each level begins and the floats
// from image to image.
struct Output {
    std::vector<const float*> rows;
    std::vector<std::ptrdiff_t> strides;
};

Output output_of(const char* name, const py::object& object, std::size_t columns,
                 const std::vector<std::size_t>& level_anchors, Batch& batch) {
    const auto view_of = [columns, &batch](const ArgumentName& argument, const py::object& array,
                                           std::size_t anchors) {
        DeviceArrayView view = device_array_view(
            argument, array, {"B", static_cast<py::ssize_t>(anchors), static_cast<py::ssize_t>(columns)},
            batch.stream);
        batch.add(argument, view);
        return view;
    };
    Output output;
    if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) {
        std::size_t total = 0;
        for (const std::size_t anchors : level_anchors) total += anchors;
        const DeviceArrayView view = view_of({name}, object, total);
        const float* rows = view.data;
        for (const std::size_t anchors : level_anchors) {
            output.rows.push_back(rows);
            output.strides.push_back(view.stride);
            rows += anchors * columns;
        }
        return output;
    }
    // A tuple of its own: what is asked of an array may run foreign code that changes a list meanwhile.
    const auto levels = py::reinterpret_steal<py::tuple>(PySequence_Tuple(object.ptr()));
    if (!levels) throw py::error_already_set();
    if (levels.size() != level_anchors.size()) {
        throw py::value_error(std::string(name) + ": expected " + std::to_string(level_anchors.size()) +
                              " arrays, one for each level, got " + std::to_string(levels.size()));
    }
    for (std::size_t k = 0; k < levels.size(); ++k) {
        const DeviceArrayView view = view_of({name, static_cast<std::ptrdiff_t>(k)},
                                             py::reinterpret_borrow<py::object>(levels[k]), level_anchors[k]);
        output.rows.push_back(view.data);
        output.strides.push_back(view.stride);
    }
    return output;
}

std::shared_ptr<FacesOnDevice> run_postprocess(const std::vector<std::size_t>& strides,
                                               const std::vector<std::vector<float>>& sizes,
                                               const py::object& class_scores, const py::object& box_deltas,
                                               const py::object& landmark_deltas, const py::object& size,
                                               bool probabilities, const py::object& variances,
                                               const py::object& score_threshold,
                                               const py::object& nms_threshold, const py::object& top_k,
                                               const py::object& keep_top_k, const py::object& stream) {
    const AnchorPyramid pyramid = make_pyramid(strides, sizes);
    const ImageSize image = image_size("image_size_hw", size);
    checked_num_anchors("image_size_hw", pyramid, image);
    PostprocessOptions options;
    options.score_kind = probabilities ? ScoreKind::probabilities : ScoreKind::logits;
    options.variances = variances_of("variances", variances);
    read_limits(options, score_threshold, nms_threshold, top_k, keep_top_k);

    Batch batch;
    batch.stream = stream_of(stream);
    const std::size_t level_count = pyramid.levels().size();
    std::vector<std::size_t> level_anchors(level_count);
    for (std::size_t k = 0; k < level_count; ++k) level_anchors[k] = pyramid.num_anchors(k, image);
    const Output scores = output_of("class_scores", class_scores, 2, level_anchors, batch);
    const Output boxes = output_of("box_deltas", box_deltas, 4, level_anchors, batch);
    const Output landmarks =
        output_of("landmark_deltas", landmark_deltas, kLandmarkFloats, level_anchors, batch);
    std::vector<cuda::DeviceLevel> levels;
    levels.reserve(level_count);
    for (std::size_t k = 0; k < level_count; ++k) {
        levels.push_back({scores.rows[k], boxes.rows[k], landmarks.rows[k], scores.strides[k],
                          boxes.strides[k], landmarks.strides[k]});
    }

    cuda::DeviceFaces faces;
    {
        const py::gil_scoped_release release;
        for (const std::uintptr_t other : batch.others) cuda::wait_for(batch.device, batch.stream, other);
        faces = cuda::postprocess(pyramid, image, levels.data(), batch.length, options, batch.device,
                                  batch.stream);
    }
    batch.owners.push_back({stream, nullptr});
    return std::make_shared<FacesOnDevice>(std::move(faces), std::move(batch.owners));
}

// Of the build; none where the kernels were compiled for the CPU.
std::vector<std::string> architectures() {
#ifdef RETINAFACE_CUDA_ARCHITECTURES
    return {RETINAFACE_CUDA_ARCHITECTURES};  // such as "75","80","90"
#else
    return {};
#endif
}

}  // namespace

}  // namespace retinaface::python

namespace py = pybind11;

PYBIND11_MODULE(_cuda, module, py::mod_gil_not_used()) {
    namespace cuda = retinaface::cuda;
    using namespace retinaface::python;

    module.doc() =
        "Post-processing on CUDA devices. Its functions are documented in retinaface_fast.ops.cuda.";
#ifdef RETINAFACE_CUDA_ON_CPU
    // For tests only: the kernels run on the CPU, memory of NumPy is a device's, and what was asked of CUDA
    // since the last time is counted.
    cuda_on_cpu::treat_all_memory_as_device(true);
    module.attr("on_cpu") = true;
    module.def("fail_next", [](const char* name, int error) {
        cuda_on_cpu::fail_next(name, static_cast<cudaError_t>(error));
    });
    module.def("counters", []() {
        const cuda_on_cpu::Counters counters = cuda_on_cpu::counters();
        cuda_on_cpu::reset_counters();
        py::dict counts;
        counts["launches"] = counters.launches;
        counts["synchronisations"] = counters.synchronisations;
        counts["stream_waits"] = counters.stream_waits;
        counts["copies_to_host"] = counters.copies_to_host;
        counts["live_allocations"] = counters.live_allocations;
        counts["live_events"] = counters.live_events;
        return counts;
    });
#else
    module.attr("on_cpu") = false;
#endif
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            std::rethrow_exception(std::move(thrown));
        } catch (const cuda::OutOfMemory& error) {
            PyErr_SetString(PyExc_MemoryError, error.what());
        }
    });
    module.def("device_count", &cuda::device_count);
    module.def("obstacle", &cuda::obstacle);
    module.def("architectures", &architectures);
    module.def("postprocess", &run_postprocess);

    // Local, as a process of the tests may load this module twice: for a device and for the CPU.
    py::class_<DeviceArray>(module, "DeviceArray", py::module_local())
        .def_property_readonly("__cuda_array_interface__", &cuda_array_interface)
        .def(
            "__dlpack__",
            [](const DeviceArray& self, const py::object& stream, const py::object& /*max_version*/,
               const py::object& dl_device,
               const py::object& copy) { return to_dlpack(self, stream, dl_device, copy); },
            py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
            py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
        .def("__dlpack_device__",
             [](const DeviceArray& self) { return std::pair(dlpack::kCuda, self.owner->faces().device()); });
    py::class_<FacesOnDevice, std::shared_ptr<FacesOnDevice>>(module, "DeviceFaces", py::module_local())
        .def_property_readonly("device", [](const FacesOnDevice& self) { return self.faces().device(); })
        .def_property_readonly("stream", [](const FacesOnDevice& self) { return self.faces().stream(); })
        .def_property_readonly("batch_size",
                               [](const FacesOnDevice& self) { return self.faces().batch_size(); })
        .def_property_readonly("capacity", [](const FacesOnDevice& self) { return self.faces().capacity(); })
        .def_property_readonly("offsets", &offsets_of)
        .def_property_readonly("rows", &rows_of)
        .def("to_host", &to_host);
}
