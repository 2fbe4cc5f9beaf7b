// Greedy non-maximum suppression.
//
// Candidates are taken by score, highest first, and by index where scores are equal; a candidate is dropped
// when its IoU with one that was kept is greater than the threshold. Boxes are xyxy without the "+1" of
// integer boxes. IoU is intersection / (area_a + area_b - intersection), in float32 and in that order, so the
// answer is the one of torchvision.ops.nms, the same at every SIMD level. A box without area, or with a NaN
// or infinite side, overlaps nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace retinaface {

// Number of kept boxes up to which a candidate is compared with all of them; past it, a grid finds the
// near ones. Measured: below a few hundred, eight comparisons at once beat a dozen cell look-ups.
inline constexpr std::size_t kNmsGridFrom = 384;

// Buffers that keep their memory from call to call. Not to be shared by two calls at the same time.
class NmsWorkspace {
  public:
    // The boxes that are kept so far: structure of arrays, padded with empty boxes to a multiple of 8.
    struct Kept {
        std::vector<float> x1, y1, x2, y2, area;
        std::size_t count = 0;
    };
    struct GridEntry {
        float x1, y1, x2, y2, area;
        std::uint32_t position, next;
    };
    Kept kept;
    std::vector<std::uint32_t> grid_heads;
    std::vector<GridEntry> grid_entries;
    std::vector<std::uint64_t> sort_keys;
    std::vector<std::uint64_t> sort_spare;
    std::vector<float> sorted_boxes;
};

// The largest float that is not greater than `threshold`, so that "value > threshold" decides for a float
// exactly as it does in double precision.
[[nodiscard]] float round_down_to_float(double threshold) noexcept;

// Order of the scores, highest first, equal scores by index; only the first top_k (0: all). Scores must not
// be NaN. Writes the indices into `order` and returns how many there are. `order` has room for n.
std::size_t sort_by_score(const float* scores, std::size_t n, std::size_t top_k, NmsWorkspace& workspace,
                          std::uint32_t* order);

// Suppression of boxes (n, 4) that are in order already. Writes positions into `kept_positions` (room for n)
// and returns their number, at most keep_top_k (0: all). iou_threshold is within [0, 1].
std::size_t nms_sorted(const float* boxes_xyxy, std::size_t n, double iou_threshold, std::size_t keep_top_k,
                       NmsWorkspace& workspace, std::uint32_t* kept_positions);

// Suppression of boxes (n, 4) with scores (n): the first top_k by score compete (0: all); at most keep_top_k
// indices (0: all) are returned, highest score first.
std::vector<std::uint32_t> nms(const float* boxes_xyxy, const float* scores, std::size_t n,
                               double iou_threshold, std::size_t top_k, std::size_t keep_top_k,
                               NmsWorkspace& workspace);

// IoU of every pair: boxes (n, 4) and others (m, 4) -> (n, m). 0 where nothing overlaps.
void box_iou(const float* boxes_xyxy, std::size_t n, const float* others_xyxy, std::size_t m,
             float* iou) noexcept;

}  // namespace retinaface
