// For each predicted box the annotated one of its picture that it overlaps most: the part of an evaluation
// that looks at every pair of boxes.
//
// Overlap is intersection / (area_a + area_b - intersection) in double precision and in that order, with the
// widths x2 - x1 + 1 of the official WIDER FACE evaluation: boxes that only touch overlap, and a box of 0 x 0
// is a pixel. Boxes are xyxy. A box with a NaN side overlaps nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace retinaface {

// The boxes of many pictures, one after another: those of picture i are rows offsets[i] to offsets[i + 1].
struct PictureBoxes {
    const double* boxes_xyxy;    // (n, 4)
    const std::size_t* offsets;  // (pictures + 1), from 0 to n, never falling
};

// For each row of `predictions` the row of `truth` in the same picture with the greatest overlap, the first
// of equals, and that overlap. `best` is -1 where the picture has no annotated box, and the picture's first
// box where none is overlapped. Both outputs have a place for each prediction.
void match_boxes(PictureBoxes predictions, PictureBoxes truth, std::size_t pictures, std::int64_t* best,
                 double* overlaps) noexcept;

}  // namespace retinaface
