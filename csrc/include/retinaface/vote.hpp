// Box voting: the boxes that several searches of one picture found for a face become one.
//
// Candidates are taken by score, highest first, and by index where scores are equal. The first that is left
// and all others left that overlap it with an IoU >= threshold form a group; the box of the group is the mean
// of its boxes, weighted by their scores, and so are its landmarks. IoU is that of nms.hpp: float32, no "+1";
// a box without area, or with a side that is NaN or infinite, is a group of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "retinaface/nms.hpp"

namespace retinaface {

// The groups, highest of the best scores first.
struct Votes {
    std::vector<float> boxes;           // (groups, 4) xyxy
    std::vector<float> scores;          // (groups): the best of the group
    std::vector<float> landmarks;       // (groups, 10); empty without landmarks
    std::vector<float> score_sums;      // (groups)
    std::vector<std::int64_t> members;  // (groups): how many candidates
};

// Groups of boxes (n, 4) with scores (n), finite and >= 0, and landmarks (n, 10) or null. iou_threshold is
// within [0, 1]. The sums are in double precision. Time grows with n times the number of groups.
[[nodiscard]] Votes vote_boxes(const float* boxes_xyxy, const float* scores, const float* landmarks,
                               std::size_t n, double iou_threshold, NmsWorkspace& workspace);

}  // namespace retinaface
