// Anchors, decode, encode, clip, IoU, NMS and box voting.
#include <pybind11/stl.h>

#include <algorithm>

#include "array_view.hpp"
#include "register.hpp"
#include "retinaface/decode.hpp"
#include "retinaface/nms.hpp"
#include "retinaface/vote.hpp"

namespace retinaface::python {

namespace {

using Transform = void (*)(const float*, const float*, std::size_t, Variances, float*);

AnchorPyramid make_pyramid(const std::vector<std::size_t>& strides,
                           const std::vector<std::vector<float>>& sizes) {
    std::vector<AnchorLevel> levels;
    levels.reserve(strides.size());
    for (std::size_t k = 0; k < strides.size(); ++k) levels.push_back({strides[k], sizes.at(k)});
    return AnchorPyramid(std::move(levels));
}

FloatArray generate_anchors(const AnchorPyramid& pyramid, const py::object& size) {
    const ImageSize image = image_size("image_size_hw", size);
    const std::size_t anchors = checked_num_anchors("image_size_hw", pyramid, image);
    FloatArray out = float_array({static_cast<py::ssize_t>(anchors), 4});
    float* const data = out.mutable_data();
    {
        const py::gil_scoped_release release;
        pyramid.generate(image, data);
    }
    return out;
}

// The frame that decode and encode share: rows of values with `columns` columns, and one anchor for each.
FloatArray with_anchors(const char* name, const py::object& values_in, const py::object& anchors_in,
                        const py::object& variances_in, py::ssize_t columns, Transform transform) {
    const FloatView values = float_rows(name, values_in, columns);
    const FloatView anchors = float_rows("anchors", anchors_in, 4);
    const Variances variances = variances_of("variances", variances_in);
    if (anchors.length != values.length) {
        throw py::value_error("anchors: expected one for each of the " + std::to_string(values.length) +
                              " rows of " + std::string(name) + ", got " + std::to_string(anchors.length));
    }
    FloatArray out = float_array({static_cast<py::ssize_t>(values.length), columns});
    float* const data = out.mutable_data();
    {
        const py::gil_scoped_release release;
        transform(values.data, anchors.data, values.length, variances, data);
    }
    return out;
}

py::array_t<std::int64_t> nms_indices(const py::object& boxes_in, const py::object& scores_in,
                                      const py::object& iou_threshold, const py::object& top_k,
                                      const py::object& keep_top_k) {
    const FloatView boxes = float_rows("boxes", boxes_in, 4);
    const FloatView scores = float_view({"scores"}, scores_in, {"N"});
    const double threshold = unit_interval("iou_threshold", iou_threshold);
    const std::size_t before = optional_count("top_k", top_k);
    const std::size_t after = optional_count("keep_top_k", keep_top_k);
    if (scores.length != boxes.length) {
        throw py::value_error("scores: expected one for each of the " + std::to_string(boxes.length) +
                              " boxes, got " + std::to_string(scores.length));
    }
    if (boxes.length > kMaxAnchors) throw py::value_error("boxes: expected at most 2147483647 boxes");
    std::vector<std::uint32_t> kept;
    std::size_t nan_at = boxes.length;
    {
        const py::gil_scoped_release release;
        for (std::size_t i = 0; i < scores.length && nan_at == boxes.length; ++i) {
            if (std::isnan(scores.data[i])) nan_at = i;
        }
        if (nan_at == boxes.length) {
            NmsWorkspace workspace;
            kept = nms(boxes.data, scores.data, boxes.length, threshold, before, after, workspace);
        }
    }
    if (nan_at < boxes.length) {
        throw py::value_error("scores: expected numbers that can be ordered, got NaN at index " +
                              std::to_string(nan_at));
    }
    py::array_t<std::int64_t> out(static_cast<py::ssize_t>(kept.size()));
    std::int64_t* const data = out.mutable_data();
    for (std::size_t i = 0; i < kept.size(); ++i) data[i] = kept[i];
    return out;
}

template <typename T>
py::array_t<T> to_array(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
    py::array_t<T> out(std::move(shape));
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}

py::tuple vote(const py::object& boxes_in, const py::object& scores_in, const py::object& landmarks_in,
               const py::object& iou_threshold) {
    const FloatView boxes = float_rows("boxes", boxes_in, 4);
    const FloatView scores = float_view({"scores"}, scores_in, {"N"});
    FloatView landmarks;
    if (!landmarks_in.is_none()) landmarks = float_rows("landmarks", landmarks_in, 10);
    const double threshold = unit_interval("iou_threshold", iou_threshold);
    const auto check_length = [&](const char* name, std::size_t length) {
        if (length == boxes.length) return;
        throw py::value_error(std::string(name) + ": expected one for each of the " +
                              std::to_string(boxes.length) + " boxes, got " + std::to_string(length));
    };
    check_length("scores", scores.length);
    if (!landmarks_in.is_none()) check_length("landmarks", landmarks.length);
    if (boxes.length > kMaxAnchors) throw py::value_error("boxes: expected at most 2147483647 boxes");
    Votes votes;
    std::size_t bad_at = scores.length;
    {
        const py::gil_scoped_release release;
        for (std::size_t i = 0; i < scores.length && bad_at == scores.length; ++i) {
            if (!(scores.data[i] >= 0.0F) || std::isinf(scores.data[i])) bad_at = i;
        }
        if (bad_at == scores.length) {
            NmsWorkspace workspace;
            votes = vote_boxes(boxes.data, scores.data, landmarks.data, boxes.length, threshold, workspace);
        }
    }
    if (bad_at < scores.length) {
        throw py::value_error("scores: expected finite numbers >= 0, got " +
                              std::string(py::str(py::float_(scores.data[bad_at]))) + " at index " +
                              std::to_string(bad_at));
    }
    const auto groups = static_cast<py::ssize_t>(votes.scores.size());
    return py::make_tuple(
        to_array(votes.boxes, {groups, 4}), to_array(votes.scores, {groups}),
        landmarks_in.is_none() ? py::object(py::none()) : py::object(to_array(votes.landmarks, {groups, 10})),
        to_array(votes.score_sums, {groups}), to_array(votes.members, {groups}));
}

}  // namespace

void register_ops(py::module_& module) {
    py::class_<AnchorPyramid>(module, "AnchorPyramid")
        .def(py::init(&make_pyramid), py::arg("strides"), py::arg("sizes"))
        .def("num_anchors",
             [](const AnchorPyramid& pyramid, const py::object& size) {
                 return checked_num_anchors("image_size_hw", pyramid, image_size("image_size_hw", size));
             })
        .def("generate", &generate_anchors);

    module.def("decode_boxes",
               [](const py::object& deltas, const py::object& anchors, const py::object& variances) {
                   return with_anchors("box_deltas", deltas, anchors, variances, 4, decode_boxes);
               });
    module.def("decode_landmarks",
               [](const py::object& deltas, const py::object& anchors, const py::object& variances) {
                   return with_anchors("landmark_deltas", deltas, anchors, variances, 10, decode_landmarks);
               });
    module.def("encode_boxes",
               [](const py::object& boxes, const py::object& anchors, const py::object& variances) {
                   return with_anchors("boxes", boxes, anchors, variances, 4, encode_boxes);
               });
    module.def("encode_landmarks",
               [](const py::object& landmarks, const py::object& anchors, const py::object& variances) {
                   return with_anchors("landmarks", landmarks, anchors, variances, 10, encode_landmarks);
               });
    module.def("clip_boxes", [](const py::object& boxes_in, const py::object& size) {
        const FloatView boxes = float_rows("boxes", boxes_in, 4);
        const ImageSize image = image_size("image_size_hw", size);
        FloatArray out = float_array({static_cast<py::ssize_t>(boxes.length), 4});
        float* const data = out.mutable_data();
        {
            const py::gil_scoped_release release;
            clip_boxes(boxes.data, boxes.length, image, data);
        }
        return out;
    });
    module.def("box_iou", [](const py::object& boxes_in, const py::object& others_in) {
        const FloatView boxes = float_rows("boxes1", boxes_in, 4);
        const FloatView others = float_rows("boxes2", others_in, 4);
        FloatArray out =
            float_array({static_cast<py::ssize_t>(boxes.length), static_cast<py::ssize_t>(others.length)});
        float* const data = out.mutable_data();
        {
            const py::gil_scoped_release release;
            box_iou(boxes.data, boxes.length, others.data, others.length, data);
        }
        return out;
    });
    module.def("nms", &nms_indices);
    module.def("vote_boxes", &vote);
}

}  // namespace retinaface::python
