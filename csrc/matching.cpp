#include "retinaface/matching.hpp"

#include <algorithm>

namespace retinaface {

void match_boxes(PictureBoxes predictions, PictureBoxes truth, std::size_t pictures, std::int64_t* best,
                 double* overlaps) noexcept {
    for (std::size_t picture = 0; picture < pictures; ++picture) {
        const std::size_t first = truth.offsets[picture];
        const std::size_t last = truth.offsets[picture + 1];
        for (std::size_t i = predictions.offsets[picture]; i < predictions.offsets[picture + 1]; ++i) {
            const double* const a = predictions.boxes_xyxy + 4 * i;
            const double area_a = (a[2] - a[0] + 1.0) * (a[3] - a[1] + 1.0);
            std::size_t best_at = first;
            double most = 0.0;
            for (std::size_t j = first; j < last; ++j) {
                const double* const b = truth.boxes_xyxy + 4 * j;
                const double width = std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1.0;
                const double height = std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1.0;
                // Most pairs are apart: they are spared the division. One branch, since which of the axes
                // parts them is hard to predict.
                if (std::min(width, height) <= 0.0) continue;
                const double area_b = (b[2] - b[0] + 1.0) * (b[3] - b[1] + 1.0);
                const double shared = width * height;
                const double overlap = shared / (area_a + area_b - shared);
                if (overlap > most) {  // never for NaN, which is in the area of a box that has one
                    most = overlap;
                    best_at = j;
                }
            }
            best[i] = first < last ? static_cast<std::int64_t>(best_at) : -1;
            overlaps[i] = most;
        }
    }
}

}  // namespace retinaface
