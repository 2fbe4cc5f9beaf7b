// Which anchors are faces.
#include <algorithm>
#include <cmath>

#include "array_view.hpp"
#include "register.hpp"
#include "retinaface/assignment.hpp"

namespace retinaface::python {

namespace {

void check_boxes(const FloatView& boxes) {
    for (std::size_t i = 0; i < boxes.length; ++i) {
        const float* const box = boxes.data + 4 * i;
        const bool finite = std::all_of(box, box + 4, [](float side) { return std::isfinite(side); });
        // Sides that are finite may differ by more than float32 holds.
        const bool has_area =
            box[2] > box[0] && box[3] > box[1] && std::isfinite((box[2] - box[0]) * (box[3] - box[1]));
        if (finite && has_area) continue;
        std::string sides;
        for (std::size_t k = 0; k < 4; ++k) {
            sides += (k == 0 ? "(" : ", ") + std::string(py::str(py::float_(static_cast<double>(box[k]))));
        }
        throw py::value_error("boxes: expected finite ones with x1 < x2, y1 < y2 and a finite area, got " +
                              sides + ") at index " + std::to_string(i));
    }
}

py::array_t<std::int64_t> assign(const py::object& anchors_in, const py::object& boxes_in,
                                 const py::object& ignored_in, const py::object& positive_iou,
                                 const py::object& negative_iou, bool force,
                                 const py::object& force_min_iou) {
    const FloatView anchors = float_view({"anchors"}, anchors_in, {"A", -1, 4});
    const FloatView boxes = float_view({"boxes"}, boxes_in, {"G", -1, 4});
    ArrayView<bool> ignored;
    if (!ignored_in.is_none()) {
        ignored = array_view<bool>({"ignored"}, ignored_in, {"G"});
        if (ignored.length != boxes.length) {
            throw py::value_error("ignored: expected one for each of the " + std::to_string(boxes.length) +
                                  " boxes, got " + std::to_string(ignored.length));
        }
    }
    if (std::max(anchors.length, boxes.length) > kMaxAnchors) {
        throw py::value_error("anchors, boxes: expected at most " + std::to_string(kMaxAnchors) + " of each");
    }
    check_boxes(boxes);
    const AssignmentThresholds thresholds{static_cast<float>(unit_interval("positive_iou", positive_iou)),
                                          static_cast<float>(unit_interval("negative_iou", negative_iou)),
                                          force,
                                          static_cast<float>(unit_interval("force_min_iou", force_min_iou))};
    py::array_t<std::int64_t> assigned(static_cast<py::ssize_t>(anchors.length));
    std::int64_t* const data = assigned.mutable_data();
    {
        const py::gil_scoped_release release;
        AssignmentWorkspace workspace;
        // As bytes: what NumPy takes for true need not be the 1 that a C++ bool is.
        const auto* const flags = reinterpret_cast<const unsigned char*>(ignored.data);
        assign_anchors(anchors.data, anchors.length, boxes.data, flags, boxes.length, thresholds, workspace,
                       data);
    }
    return assigned;
}

}  // namespace

void register_assignment(py::module_& module) { module.def("assign_anchors", &assign); }

}  // namespace retinaface::python
