// Which anchors are faces: the step of training that looks at every pair of an anchor and a face.
//
// IoU is that of nms.hpp, in float32 and the same bit for bit; an anchor that is not finite overlaps nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace retinaface {

inline constexpr std::int64_t kNegativeAnchor = -1;
inline constexpr std::int64_t kIgnoredAnchor = -2;

struct AssignmentThresholds {
    float positive_iou;   // a face from this IoU on, > 0
    float negative_iou;   // background below, > 0 and at most positive_iou
    bool force;           // each face takes its best anchor ...
    float force_min_iou;  // ... from this IoU on
};

// Memory that calls may share, one after another.
struct AssignmentWorkspace {
    std::vector<float> sides;              // x1, y1, x2, y2 and area of the anchors, in blocks
    std::vector<float> bounds;             // x1, y1, x2, y2 of the blocks
    std::vector<float> best;               // highest IoU of each anchor ...
    std::vector<std::int32_t> best_face;   // ... and with which face
    std::vector<std::size_t> best_anchor;  // of each face
};

// For each of n anchors the row of its face, kNegativeAnchor or kIgnoredAnchor:
//   1. the face with which its IoU is highest, the first of equals, if that is >= positive_iou; background if
//      it is < negative_iou, and ignored in between;
//   2. with `force`, each face takes the first of the anchors with which its IoU is highest, if that is
//      >= force_min_iou and > 0; of several faces that take one anchor the last has it;
//   3. background becomes ignored where its IoU with an ignored face is > 0 and
//        a. >= negative_iou, or >= half of the highest IoU that this face has with any anchor, or
//        b. at least half of the anchor's area lies inside the face, as COCO has it for crowds.
//      A face that is smaller than all anchors reaches negative_iou with none of them: of those that are
//      nearest to its size, (a) leaves out the ones that hold about half of it, which are those that may find
//      it. A region that is larger than its faces is (b)'s.
// Faces with ignored[i] != 0 take part in the third step only; null: there are none. Faces are finite and
// have a finite area, and there are at most 2^31 - 1.
//
// Anchors are looked at in blocks of neighbours in the array, and a block that a face does not touch is
// passed over: those of a pyramid lie row by row, so that few are touched. Any other order is only slower.
void assign_anchors(const float* anchors_cxcywh, std::size_t n, const float* faces_xyxy,
                    const unsigned char* ignored, std::size_t faces, const AssignmentThresholds& thresholds,
                    AssignmentWorkspace& workspace, std::int64_t* assigned);

}  // namespace retinaface
