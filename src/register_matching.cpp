// The annotated box that each predicted box overlaps most.
#include "array_view.hpp"
#include "register.hpp"
#include "retinaface/matching.hpp"

namespace retinaface::python {

namespace {

py::tuple match(const py::object& predictions_in, const py::object& prediction_offsets_in,
                const py::object& boxes_in, const py::object& box_offsets_in) {
    const auto predictions = array_view<double>({"predictions"}, predictions_in, {"P", -1, 4});
    const auto boxes = array_view<double>({"boxes"}, boxes_in, {"G", -1, 4});
    const std::vector<std::size_t> prediction_offsets =
        part_offsets("prediction_offsets", prediction_offsets_in, predictions.length);
    const std::vector<std::size_t> box_offsets = part_offsets("box_offsets", box_offsets_in, boxes.length);
    if (box_offsets.size() != prediction_offsets.size()) {
        throw py::value_error("box_offsets: expected " + std::to_string(prediction_offsets.size()) +
                              " numbers, as prediction_offsets has, got " +
                              std::to_string(box_offsets.size()));
    }
    py::array_t<std::int64_t> best(static_cast<py::ssize_t>(predictions.length));
    py::array_t<double> overlaps(static_cast<py::ssize_t>(predictions.length));
    std::int64_t* const best_data = best.mutable_data();
    double* const overlap_data = overlaps.mutable_data();
    {
        const py::gil_scoped_release release;
        match_boxes({predictions.data, prediction_offsets.data()}, {boxes.data, box_offsets.data()},
                    prediction_offsets.size() - 1, best_data, overlap_data);
    }
    return py::make_tuple(best, overlaps);
}

}  // namespace

void register_matching(py::module_& module) { module.def("match_boxes", &match); }

}  // namespace retinaface::python
