// The fused post-processing of raw network outputs.
#include <algorithm>
#include <cstring>

#include "array_view.hpp"
#include "register.hpp"
#include "retinaface/postprocess.hpp"

namespace retinaface::python {

namespace {

// One output of the network, either concatenated over the levels or one array for each: as pointers to the
// rows of level k of image b.
class OutputView {
  public:
    OutputView(const char* name, const py::object& object, py::ssize_t columns,
               const std::vector<std::size_t>& level_anchors)
        : columns_(static_cast<std::size_t>(columns)) {
        offsets_.reserve(level_anchors.size());
        if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) {
            std::size_t total = 0;
            for (const std::size_t anchors : level_anchors) {
                offsets_.push_back(total * columns_);
                total += anchors;
            }
            add({name}, object, total);
            return;
        }
        const auto levels = py::reinterpret_borrow<py::sequence>(object);
        if (levels.size() != level_anchors.size()) {
            throw py::value_error(std::string(name) + ": expected " + std::to_string(level_anchors.size()) +
                                  " arrays, one for each level, got " + std::to_string(levels.size()));
        }
        offsets_.assign(level_anchors.size(), 0);
        views_.reserve(level_anchors.size());
        for (std::size_t k = 0; k < levels.size(); ++k) {
            add({name, static_cast<std::ptrdiff_t>(k)}, levels[k], level_anchors[k]);
        }
    }

    [[nodiscard]] std::size_t batch_size() const noexcept { return views_.front().length; }
    [[nodiscard]] const float* rows(std::size_t image, std::size_t level) const noexcept {
        return views_[views_.size() == 1 ? 0 : level].entry(image) + offsets_[level];
    }

  private:
    void add(const ArgumentName& name, const py::handle& object, std::size_t anchors) {
        views_.push_back(float_view(
            name, object, {"B", static_cast<py::ssize_t>(anchors), static_cast<py::ssize_t>(columns_)}));
        if (views_.back().length != batch_size()) {
            throw py::value_error(name.words() + ": expected " + std::to_string(batch_size()) +
                                  " images, as in the first level, got " +
                                  std::to_string(views_.back().length));
        }
    }

    std::size_t columns_;
    std::vector<FloatView> views_;
    std::vector<std::size_t> offsets_;
};

// Workspaces for a batch, back in the pool whatever happens.
class Lease {
  public:
    Lease(WorkspacePool& pool, std::size_t count) : pool_(pool) {
        workspaces_.reserve(count);
        for (std::size_t i = 0; i < count; ++i) workspaces_.push_back(pool.acquire());
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
        for (std::unique_ptr<Workspace>& workspace : workspaces_) pool_.release(std::move(workspace));
    }
    [[nodiscard]] const std::vector<std::unique_ptr<Workspace>>& workspaces() const noexcept {
        return workspaces_;
    }

  private:
    WorkspacePool& pool_;
    std::vector<std::unique_ptr<Workspace>> workspaces_;
};

FloatArray copy_of(const std::vector<float>& values, std::vector<py::ssize_t> shape) {
    FloatArray out = float_array(std::move(shape));
    if (!values.empty()) std::memcpy(out.mutable_data(), values.data(), values.size() * sizeof(float));
    return out;
}

py::list run_postprocess(const AnchorPyramid& pyramid, const py::object& class_scores,
                         const py::object& box_deltas, const py::object& landmark_deltas,
                         const py::object& size, bool probabilities, const py::object& variances,
                         const py::object& score_threshold, const py::object& nms_threshold,
                         const py::object& top_k, const py::object& keep_top_k, const py::object& threads) {
    static WorkspacePool pool;

    const ImageSize image = image_size("image_size_hw", size);
    checked_num_anchors("image_size_hw", pyramid, image);
    PostprocessOptions options;
    options.score_kind = probabilities ? ScoreKind::probabilities : ScoreKind::logits;
    options.variances = variances_of("variances", variances);
    read_limits(options, score_threshold, nms_threshold, top_k, keep_top_k);
    const std::size_t num_threads = count("threads", threads, 1024);

    const std::size_t level_count = pyramid.levels().size();
    std::vector<std::size_t> level_anchors(level_count);
    for (std::size_t k = 0; k < level_count; ++k) level_anchors[k] = pyramid.num_anchors(k, image);
    const OutputView scores("class_scores", class_scores, 2, level_anchors);
    const OutputView boxes("box_deltas", box_deltas, 4, level_anchors);
    const OutputView landmarks("landmark_deltas", landmark_deltas, 10, level_anchors);
    const std::size_t batch_size = scores.batch_size();
    for (const auto& [name, other] :
         {std::pair{"box_deltas", &boxes}, std::pair{"landmark_deltas", &landmarks}}) {
        if (other->batch_size() != batch_size) {
            throw py::value_error(std::string(name) + ": expected " + std::to_string(batch_size) +
                                  " images, as in class_scores, got " + std::to_string(other->batch_size()));
        }
    }
    std::vector<LevelOutputs> outputs;
    outputs.reserve(batch_size * level_count);
    for (std::size_t b = 0; b < batch_size; ++b) {
        for (std::size_t k = 0; k < level_count; ++k) {
            outputs.push_back({scores.rows(b, k), boxes.rows(b, k), landmarks.rows(b, k)});
        }
    }

    const Lease lease(pool, batch_size);
    {
        const py::gil_scoped_release release;
        postprocess_batch(pyramid, image, outputs.data(), batch_size, options, num_threads,
                          lease.workspaces());
    }
    py::list faces;
    for (const std::unique_ptr<Workspace>& workspace : lease.workspaces()) {
        const auto n = static_cast<py::ssize_t>(workspace->scores.size());
        faces.append(py::make_tuple(copy_of(workspace->boxes, {n, 4}), copy_of(workspace->scores, {n}),
                                    copy_of(workspace->landmarks, {n, 5, 2})));
    }
    return faces;
}

}  // namespace

void register_postprocess(py::module_& module) { module.def("postprocess", &run_postprocess); }

}  // namespace retinaface::python
