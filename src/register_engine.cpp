// The network: uint8 images in, raw outputs or faces out.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "array_view.hpp"
#include "register.hpp"
#include "retinaface/engine.hpp"

namespace retinaface::python {

namespace {

constexpr std::size_t kMostThreads = 1024;

// A uint8 array of images whose pixels lie side by side; rows and images may have any stride. It is the
// caller's memory where that is so already, and one copy where it is not.
class ImageArray {
  public:
    ImageArray(const char* name, const py::object& object, py::ssize_t dimensions) {
        const std::string expected = dimensions == 4 ? "a uint8 array of shape (B, H, W, 3) without zeros"
                                                     : "a uint8 array of shape (H, W, 3) without zeros";
        if (!py::isinstance<py::array_t<std::uint8_t>>(object)) raise_type(name, expected, object);
        array_ = py::reinterpret_borrow<py::array>(object);
        bool fits = array_.ndim() == dimensions && array_.shape(dimensions - 1) == 3;
        for (py::ssize_t axis = 0; fits && axis < dimensions; ++axis) fits = array_.shape(axis) > 0;
        if (!fits)
            throw py::value_error(std::string(name) + ": expected " + expected + ", got " + describe(array_));
        rows_axis_ = dimensions - 3;
        size_ = {static_cast<std::size_t>(array_.shape(rows_axis_)),
                 static_cast<std::size_t>(array_.shape(rows_axis_ + 1))};
        if (size_.height > kMaxImageSide || size_.width > kMaxImageSide) {
            throw py::value_error(std::string(name) + ": expected sides of at most " +
                                  std::to_string(kMaxImageSide) + " pixels, got " + describe(array_));
        }
        const bool side_by_side =
            array_.strides(dimensions - 1) == 1 && (size_.width == 1 || array_.strides(rows_axis_ + 1) == 3);
        if (!side_by_side) array_ = plain_copy<std::uint8_t>(array_);
    }

    [[nodiscard]] ImageSize size() const noexcept { return size_; }
    [[nodiscard]] py::ssize_t count() const { return rows_axis_ == 0 ? 1 : array_.shape(0); }
    [[nodiscard]] ImageView view(py::ssize_t image, bool rgb) const {
        const auto* const pixels = static_cast<const std::uint8_t*>(array_.data());
        const py::ssize_t offset = rows_axis_ == 0 ? 0 : image * array_.strides(0);
        return {pixels + offset, size_, static_cast<std::ptrdiff_t>(array_.strides(rows_axis_)),
                rgb ? ChannelOrder::rgb : ChannelOrder::bgr};
    }

  private:
    py::array array_;
    py::ssize_t rows_axis_ = 0;
    ImageSize size_{};
};

std::unique_ptr<Engine> make_engine(const py::dict& tensors, const AnchorPyramid& anchors,
                                    const py::object& variances, const py::object& mean_bgr,
                                    const py::object& backbone_slope, const py::object& neck_slope,
                                    const py::object& threads) {
    NetworkOptions options{anchors, variances_of("variances", variances)};
    const auto mean = py::reinterpret_steal<py::object>(PySequence_Tuple(mean_bgr.ptr()));
    if (!mean) {
        clear_conversion_error();
        raise_type("mean_bgr", "three numbers", mean_bgr);
    }
    if (PyTuple_GET_SIZE(mean.ptr()) != 3) {
        throw py::value_error("mean_bgr: expected three numbers, got " + std::string(py::repr(mean)));
    }
    for (py::ssize_t c = 0; c < 3; ++c) {
        options.mean_bgr[c] =
            static_cast<float>(number("mean_bgr", PyTuple_GET_ITEM(mean.ptr(), c), "three numbers"));
    }
    options.backbone_slope = static_cast<float>(unit_interval("backbone_slope", backbone_slope));
    options.neck_slope = static_cast<float>(unit_interval("neck_slope", neck_slope));
    const std::size_t most_threads = count("threads", threads, kMostThreads);

    std::vector<NamedTensor> named;
    std::vector<py::array> keep_alive;
    // A dictionary of its own: another thread may change the caller's meanwhile.
    const auto own = py::reinterpret_steal<py::dict>(PyDict_Copy(tensors.ptr()));
    if (!own) throw py::error_already_set();
    for (const auto& [key, value] : own) {
        if (!py::isinstance<py::str>(key)) raise_type("tensors", "names that are strings", key);
        const auto name = key.cast<std::string>();
        if (!py::isinstance<py::array_t<float>>(value)) {
            raise_type("tensors['" + name + "']", "a float32 array", value);
        }
        auto array = py::array_t<float, py::array::c_style>::ensure(value);
        if (!array) throw py::error_already_set();
        named.push_back(
            {name, std::vector<std::size_t>(array.shape(), array.shape() + array.ndim()), array.data()});
        keep_alive.push_back(std::move(array));
    }
    return std::make_unique<Engine>(named, options, most_threads);
}

py::tuple run(const Engine& engine, const py::object& images, bool rgb) {
    const ImageArray view("images", images, 4);
    const std::size_t levels = engine.anchors().levels().size();
    checked_num_anchors("images", engine.anchors(), view.size());
    // One piece of memory for all of them: of large pictures the system then gives it in large pages.
    constexpr py::ssize_t kColumns[3] = {2, 4, 10};
    const py::ssize_t all =
        view.count() * static_cast<py::ssize_t>(engine.anchors().num_anchors(view.size()));
    FloatArray memory = float_array({all * (kColumns[0] + kColumns[1] + kColumns[2])});
    float* next = memory.mutable_data();
    std::vector<float*> data;
    py::list outputs[3];
    for (std::size_t output = 0; output < 3; ++output) {
        for (std::size_t k = 0; k < levels; ++k) {
            const auto anchors = static_cast<py::ssize_t>(engine.anchors().num_anchors(k, view.size()));
            outputs[output].append(FloatArray({view.count(), anchors, kColumns[output]}, next, memory));
            data.push_back(next);
            next += view.count() * anchors * kColumns[output];
        }
    }
    const py::ssize_t image_count = view.count();
    std::vector<ImageView> image_views;
    for (py::ssize_t b = 0; b < image_count; ++b) image_views.push_back(view.view(b, rgb));
    {
        const py::gil_scoped_release release;
        std::vector<RawLevel> raw(levels);
        for (std::size_t b = 0; b < image_views.size(); ++b) {
            for (std::size_t k = 0; k < levels; ++k) {
                const std::size_t anchors = engine.anchors().num_anchors(k, view.size());
                raw[k] = {data[k] + b * anchors * 2, data[levels + k] + b * anchors * 4,
                          data[2 * levels + k] + b * anchors * 10};
            }
            engine.run(image_views[b], raw.data());
        }
    }
    return py::make_tuple(outputs[0], outputs[1], outputs[2]);
}

FloatArray copy_of(const std::vector<float>& values, std::vector<py::ssize_t> shape) {
    FloatArray out = float_array(std::move(shape));
    if (!values.empty()) std::memcpy(out.mutable_data(), values.data(), values.size() * sizeof(float));
    return out;
}

py::tuple detect(const Engine& engine, const py::object& image, bool rgb, const py::object& score_threshold,
                 const py::object& nms_threshold, const py::object& top_k, const py::object& keep_top_k) {
    static WorkspacePool pool;

    const ImageArray view("image", image, 3);
    checked_num_anchors("image", engine.anchors(), view.size());
    PostprocessOptions options;
    read_limits(options, score_threshold, nms_threshold, top_k, keep_top_k);
    const ImageView pixels = view.view(0, rgb);

    const auto give_back = [](Workspace* used) { pool.release(std::unique_ptr<Workspace>(used)); };
    const std::unique_ptr<Workspace, decltype(give_back)> faces(pool.acquire().release(), give_back);
    double network_seconds = 0.0;
    {
        const py::gil_scoped_release release;
        network_seconds = engine.detect(pixels, options, *faces);
    }
    const auto n = static_cast<py::ssize_t>(faces->scores.size());
    return py::make_tuple(copy_of(faces->boxes, {n, 4}), copy_of(faces->scores, {n}),
                          copy_of(faces->landmarks, {n, 5, 2}), network_seconds);
}

}  // namespace

void register_engine(py::module_& module) {
    py::class_<Engine>(module, "NativeEngine")
        .def(py::init(&make_engine), py::arg("tensors"), py::arg("anchors"), py::arg("variances"),
             py::arg("mean_bgr"), py::arg("backbone_slope"), py::arg("neck_slope"), py::arg("threads"))
        .def_property_readonly("threads", &Engine::threads)
        .def("run", &run, py::arg("images"), py::arg("rgb"))
        .def("detect", &detect, py::arg("image"), py::arg("rgb"), py::arg("score_threshold"),
             py::arg("nms_threshold"), py::arg("top_k"), py::arg("keep_top_k"));
    module.def("available_processors", &available_processors);
}

}  // namespace retinaface::python
